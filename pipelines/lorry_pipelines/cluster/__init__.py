"""Runs on a cluster, from its profile to their end.

:mod:`~lorry_pipelines.cluster.profile` reads how a cluster is to be used,
:mod:`~lorry_pipelines.cluster.placement` applies it to the steps of the graph, and
:mod:`~lorry_pipelines.cluster.reachability` refuses what no pod could reach.
:mod:`~lorry_pipelines.cluster.data_upload` copies this machine's data to where pods can,
:mod:`~lorry_pipelines.cluster.submission` names a run by what it would do,
:mod:`~lorry_pipelines.cluster.kubeflow` starts it, and :mod:`~lorry_pipelines.cluster.following` watches it.
"""
