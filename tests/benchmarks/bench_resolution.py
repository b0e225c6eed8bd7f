"""Resolving twenty tasks on one base in each of their steps, with and without kept digests.

    python tests/benchmarks/bench_resolution.py

Each task is resolved four times, as planning, preparing, training and evaluating do it in processes of their
own: its base gets its fingerprint, and its data is hashed. Without kept digests every file is read each time;
with them, once.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lorry_components.tasks.definition import load_task_file
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.files.digests import DigestFile, digest_file
from lorry_registry.tasks.task_spec import TaskSpec

TASKS, STEPS = 20, 4
DEMO = Path(__file__).parents[2] / "pipelines" / "tasks"


def main() -> None:
    """Time both ways and print their ratio."""
    files = sorted(DEMO.glob("*.yaml"))
    specs = [load_task_file(files[number % len(files)]) for number in range(TASKS)]
    in_full = time_resolutions(specs, lambda: digest_file)
    with tempfile.TemporaryDirectory() as folder:
        # A new cache for each step is what a new process has: entries on disk, and nothing in memory.
        kept = time_resolutions(specs, lambda: DigestCache(Path(folder)).digest_file)
    print(f"{TASKS} tasks, {STEPS} steps each: {in_full:.2f} s in full, {kept:.2f} s with kept digests")
    print(f"ratio {in_full / kept:.1f}")


def time_resolutions(specs: list[TaskSpec], open_digest: Callable[[], DigestFile]) -> float:
    """Return the seconds that it takes to resolve all tasks in all steps."""
    started = time.perf_counter()
    for _ in range(STEPS):
        for spec in specs:
            task = resolve_task(spec, digest=open_digest())
            assert task.base.identity.fingerprint
            assert task.source_digest
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
