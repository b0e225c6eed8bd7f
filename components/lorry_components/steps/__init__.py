"""The steps of the pipeline, and the runtime that they share.

A step is a folder: ``step.py`` does the work as a plain function over paths and can be called from any Python
program; ``entry.py`` runs it from a component's strings and the environment, and records the outcome;
``component.py`` is the Kubeflow glue; README.md says what goes in and what comes out. The order is
``prepare_data``, ``finetune``, ``evaluate``, ``gate``, ``register``, with ``report`` at the exit.
``runtime`` holds what every entry opens and leaves behind.
"""
