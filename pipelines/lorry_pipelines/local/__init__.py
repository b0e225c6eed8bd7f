"""Running the compiled pipeline on this machine.

:mod:`~lorry_pipelines.local.launch` compiles the graph, runs it in a process of its own
(:mod:`~lorry_pipelines.local.runner_process`), and ends that process with everything that it started.
:mod:`~lorry_pipelines.local.step_starter` imports the libraries of the steps once and starts each step as a
copy of itself; :mod:`~lorry_pipelines.local.copied_steps` lets Kubeflow's runner use it.
:mod:`~lorry_pipelines.local.containers` lets Kubeflow's runner use Docker or podman;
:mod:`~lorry_pipelines.local.display` shows the progress. Nothing is imported here, so ``lorry`` starts fast.
"""

__all__: list[str] = []
