"""From a table of one's own to a first task: what ``lorry init`` guesses, and why.

:mod:`~lorry_pipelines.starting.column_profile` reads a table and counts,
:mod:`~lorry_pipelines.starting.guesses` turns the counts into a task with a reason for each choice,
:mod:`~lorry_pipelines.starting.task_file` writes it as YAML, and
:mod:`~lorry_pipelines.starting.repository` lays out a repository of tasks around it.
"""
