"""Retraining: which tasks are out of date, what training them would take, and doing it once.

:mod:`inspecting` compares all tasks with their champions, :mod:`~lorry_pipelines.retraining.selection` picks
those that a commit has touched, :mod:`planning` says what they would take and what a budget leaves for the
next time, :mod:`results` is what a retraining hands on: to its summary, and to whoever writes a report.
"""

__all__: list[str] = []
