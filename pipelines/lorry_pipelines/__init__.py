"""The graph of steps, running it here, compiling it for a cluster, and the ``lorry`` command.

:mod:`~lorry_pipelines.graph` builds the one Kubeflow graph: prepare_data -> finetune -> evaluate -> gate ->
register, fanned out over tasks, with an exit step that reports. :mod:`~lorry_pipelines.compilation` writes it
to a file; :mod:`~lorry_pipelines.local.launch` runs that same file on this machine, in a process of its own
(:mod:`~lorry_pipelines.local.runner_process`), and :mod:`~lorry_pipelines.local.display` shows how far it is.
:mod:`~lorry_pipelines.demo_data` fetches what ``make run`` needs.
"""
