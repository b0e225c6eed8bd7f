"""Running tasks on this machine.

:mod:`~lorry_pipelines.local.launch` starts a process that runs the steps, and ends it with everything that it
started. :mod:`~lorry_pipelines.local.step_runner` is that process: it calls the steps in the order of the
graph, each in a process of :mod:`~lorry_pipelines.local.step_processes`, which begins as a copy of one that
has imported the libraries (:mod:`~lorry_pipelines.local.preloaded`). In its place
:mod:`~lorry_pipelines.local.runner_process` has Kubeflow's own local runner run the compiled graph, in
processes or containers. :mod:`~lorry_pipelines.local.containers` lets Kubeflow's runner use Docker or podman;
:mod:`~lorry_pipelines.local.display` shows the progress. Nothing is imported here, so ``lorry`` starts fast.
"""

__all__: list[str] = []
