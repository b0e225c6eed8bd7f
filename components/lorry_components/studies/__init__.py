"""Comparisons and studies: one task, many recipes, the same rows and seeds.

:mod:`~lorry_components.studies.variants` turns what a person asks for into variants of a task, or into
faults; :mod:`~lorry_components.studies.rank_study`, :mod:`~lorry_components.studies.target_study` and
:mod:`~lorry_components.studies.prompt_study` lay out the lecture's three studies. A variant and a seed make a
trial (:mod:`~lorry_components.studies.trials`), which :mod:`~lorry_components.studies.trial_run` trains and
evaluates through the steps of the pipeline, in a process of its own
(:mod:`~lorry_components.studies.trial_process`).
:mod:`~lorry_components.studies.study_summary` scores what the trials predicted on the same drawn rows,
:mod:`~lorry_components.studies.recommendation` chooses among them,
:mod:`~lorry_components.studies.study_plot` draws them.
"""
