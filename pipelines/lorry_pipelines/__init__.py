"""The graph of steps, running it here, compiling it for a cluster, and the ``lorry`` command.

From the top down
-----------------
:mod:`~lorry_pipelines.cli`
    The ``lorry`` command: each command in the module of its name, imported when it is called.
:mod:`~lorry_pipelines.studies`
    Comparisons: trials in processes, a table, a plot, runs in MLflow.
:mod:`~lorry_pipelines.retraining`
    What is out of date beside its champion, what training it would take, and doing it once.
:mod:`~lorry_pipelines.diagnosis`
    What ``lorry doctor`` looks at, each check by itself and with a time limit.
:mod:`~lorry_pipelines.local`
    The steps on this machine: in processes or containers, watched and ended as one.
:mod:`~lorry_pipelines.scheduling`
    Reads task files, and decides which tasks are out of date, in which order they are started, and which do
    not fit their resources.
:mod:`~lorry_pipelines.compilation`, :mod:`~lorry_pipelines.graph`
    The one Kubeflow graph: prepare_data -> finetune -> evaluate -> gate -> register, fanned out over tasks,
    with an exit step that reports; written to the file that both a cluster and this machine run.
"""

__all__: list[str] = []
