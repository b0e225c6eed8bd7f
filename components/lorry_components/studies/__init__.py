"""Comparisons: one task, many recipes, the same rows and seeds.

:mod:`~lorry_components.studies.variants` turns a request into variants of a task, or into faults;
:mod:`~lorry_components.studies.grids` varies an option of the methods,
:mod:`~lorry_components.studies.target_grid` and :mod:`~lorry_components.studies.prompt_grid` the target
matrices and the prompts. A variant and a seed make a trial (:mod:`~lorry_components.studies.trials`), which
:mod:`~lorry_components.studies.trial_run` trains and evaluates through the steps of the pipeline, in its own
process (:mod:`~lorry_components.studies.trial_process`).
:mod:`~lorry_components.studies.study_summary` scores the trials' predictions on the same resampled rows,
:mod:`~lorry_components.studies.recommendation` chooses among the variants,
:mod:`~lorry_components.studies.study_plot` draws them. Nothing is imported here, so that a process can still
configure the libraries (:mod:`lorry_components.process_setup`) before it loads them.
"""

__all__: list[str] = []
