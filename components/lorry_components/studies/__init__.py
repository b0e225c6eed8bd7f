"""Comparisons and studies: one task, many recipes, the same rows and seeds.

:mod:`~lorry_components.studies.drafting` turns what a person asks for into variants of a task, or into
faults; :mod:`~lorry_components.studies.ranks`, :mod:`~lorry_components.studies.projections` and
:mod:`~lorry_components.studies.wordings` lay out the lecture's three studies. A variant and a seed make a
cell (:mod:`~lorry_components.studies.cells`), which :mod:`~lorry_components.studies.running` trains and
evaluates through the steps of the pipeline, in a process of its own
(:mod:`~lorry_components.studies.cell_process`).
:mod:`~lorry_components.studies.summarizing` scores what the cells predicted on the same drawn rows,
:mod:`~lorry_components.studies.recommending` chooses among them, :mod:`~lorry_components.studies.plotting`
draws them.
"""
