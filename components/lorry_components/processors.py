"""The processors that this process may use, and the threads that its libraries start for them."""

import math
import os
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path, PurePosixPath

CPU_REQUEST_VARIABLE = "LORRY_CPU_REQUEST"
"""How many processors are reserved for a pod, where it has no limit; a decimal number."""
_THREADS = "OMP_NUM_THREADS"
_ROOT = Path("/")


def count_processors(environment: Mapping[str, str], root: Path = _ROOT) -> int:
    """Return how many processors this process may use, rounded up.

    That is the limit of its control group, else what is reserved for its pod, else all of the machine. A pod
    sees every processor of its node, and a thread on each would share the few that are the pod's.

    Args:
        environment: Where :data:`CPU_REQUEST_VARIABLE` is.
        root: Where ``proc`` and ``sys`` are.
    """
    machine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = read_cpu_limit(root) or float(environment.get(CPU_REQUEST_VARIABLE) or machine)
    return max(1, min(machine, math.ceil(share)))


def read_cpu_limit(root: Path = _ROOT) -> float | None:
    """Return how many processors this process's control groups leave it; None: they set no limit.

    Both versions of control groups are read. A limit of a group above holds as well. A container may see its
    own group as the topmost one while the system still names it by its path on the node.
    """
    return min(_list_limits(root), default=None)


def _list_limits(root: Path) -> Iterator[float]:
    groups = _read(root / "proc/self/cgroup")
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        own = PurePosixPath(path)
        for group in (own, *own.parents):
            folder = mount / group.relative_to("/")
            if controllers:
                quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
            else:
                quota, _, period = _read(folder / "cpu.max").partition(" ")
            if quota.isdecimal() and period.isdecimal():
                yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except OSError:
        # Not a Linux, or no such group in this container.
        return ""


def limit_own_threads() -> None:
    """Limit the threads of this process to the processors that it may use, as :func:`limit_threads` does."""
    limit_threads(os.environ, count_processors(os.environ))


def limit_threads(environment: MutableMapping[str, str], processors: int, *, processes: int = 1) -> None:
    """Set how many threads libraries compute with, and let them sleep while they wait for each other.

    It counts for libraries that are imported afterwards: OpenMP, MKL, torch, OpenBLAS, Arrow and tokenizers.
    What the environment says already is kept. Threads that spin instead take the processors from each other
    as soon as two programs compute on the same ones.

    Args:
        environment: The environment of this process, or of one that is about to be started.
        processors: How many processors there are.
        processes: How many processes share them.
    """
    environment.setdefault(_THREADS, str(max(1, processors // processes)))
    for name in ("OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        environment.setdefault(name, environment[_THREADS])
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
