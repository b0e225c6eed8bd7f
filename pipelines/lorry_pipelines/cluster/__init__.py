"""What a pipeline needs to run on a cluster: a profile of it, steps placed by that, and what pods can reach.

:mod:`~lorry_pipelines.cluster.profile` reads the profile, :mod:`~lorry_pipelines.cluster.placement` applies
it to the steps of the graph, and :mod:`~lorry_pipelines.cluster.reachability` refuses what no pod could
reach, before anything is compiled.
"""
