"""Retraining: which tasks are out of date, what training them would take, and doing it once.

:mod:`~lorry_pipelines.retraining.inspecting` compares all tasks with their champions,
:mod:`~lorry_pipelines.retraining.selection` picks those that a commit has touched,
:mod:`~lorry_pipelines.retraining.retrain_requests` reads which ones a tag in MLflow asks for,
:mod:`~lorry_pipelines.retraining.planning` says what they would take, and
:mod:`~lorry_pipelines.retraining.time_limit` what is left for the next time.
:mod:`~lorry_pipelines.retraining.retraining` does it, under leases, over something that runs tasks.
:mod:`~lorry_pipelines.retraining.results` is what it hands on: to its summary, and to a report.
"""

__all__: list[str] = []
