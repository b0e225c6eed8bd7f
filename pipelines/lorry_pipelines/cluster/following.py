"""Watching a run on a cluster until it ends."""

import time
from collections.abc import Callable

from lorry_pipelines.cluster.kubeflow import Kubeflow, Run

_LOOK_SECONDS = 5.0


def follow_run(
    kubeflow: Kubeflow, run: Run, look: Callable[[Run], None], *, seconds: float = _LOOK_SECONDS
) -> Run:
    """Return a run once it has ended.

    Kubeflow's own client waits for states that it does not have (``error``) and not for one that it has
    (``CANCELED``), so a cancelled run would be waited for without end.

    Args:
        kubeflow: Where it runs.
        run: The run.
        look: Called with the run at every look, and once at the end; it shows how far the tasks are.
        seconds: From one look to the next.

    Raises:
        ClusterError: Kubeflow cannot be reached any more. The run goes on.
    """
    while not run.has_ended:
        look(run)
        time.sleep(seconds)
        run = kubeflow.get_run(run.id)
    look(run)
    return run
