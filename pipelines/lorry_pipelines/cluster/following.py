"""Watching the runs of a submission on a cluster until they end."""

import time
from collections.abc import Callable, Sequence

from lorry_pipelines.cluster.kubeflow import Kubeflow, Run

_LOOK_SECONDS = 5.0


def follow_runs(
    kubeflow: Kubeflow, runs: Sequence[Run], look: Callable[[Run], None], *, seconds: float = _LOOK_SECONDS
) -> list[Run]:
    """Return runs once all of them have ended.

    Kubeflow's own client waits for states that it does not have (``error``) and not for one that it has
    (``CANCELED``), so a cancelled run would be waited for without end.

    Args:
        kubeflow: Where they run.
        runs: The runs.
        look: Called with each run at every look until it has ended, and once then; it shows how far the tasks
            are.
        seconds: From one look to the next.

    Raises:
        ClusterError: Kubeflow cannot be reached any more. The runs go on.
    """
    states = {run.id: run for run in runs}
    for run in runs:
        look(run)
    while going := [run for run in states.values() if not run.has_ended]:
        time.sleep(seconds)
        for run in going:
            states[run.id] = kubeflow.get_run(run.id)
            look(states[run.id])
    return [states[run.id] for run in runs]
