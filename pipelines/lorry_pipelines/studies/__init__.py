"""Running the comparisons that :mod:`lorry_components.studies` lays out.

:mod:`~lorry_pipelines.studies.study_run` prepares the data once, starts the trials, and writes the table and
the plot. :mod:`~lorry_pipelines.studies.trial_processes` runs trials as processes, several at a time;
:mod:`~lorry_pipelines.studies.study_tracking` shows them in MLflow. Nothing is imported here, so ``lorry``
starts fast.
"""

__all__: list[str] = []
