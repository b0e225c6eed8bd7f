"""The first step: from the source that a task names to three checked tables and a data card.

Nothing is imported here, so that a pipeline is compiled without pyarrow.
"""
