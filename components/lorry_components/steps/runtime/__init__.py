"""The surroundings of every step: what it is started with, and the outcome that it leaves.

``step_context`` turns a component's arguments and the environment into the objects that steps take.
``outcomes`` records in the store whether a step was done, had nothing to do, or failed, so that one failed
task does not stop the others and the report can name what failed.
"""
