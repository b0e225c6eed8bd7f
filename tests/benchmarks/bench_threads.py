"""Two trainings that share processors, against one alone.

    python tests/benchmarks/bench_threads.py [--epochs 0.3]

Each is `lorry run --force` of the demo's tweets in a LORRY_HOME of its own. First two commands at once on all
processors of this machine; then, where this process may make control groups, two commands in a group of one
processor each, as two pods on one node. With two processors, two commands that share both can at best take
twice as long each as one alone, and two in groups of their own no longer than one. The seconds are those of
the training loops; `active` is the same with OpenMP's default, threads that spin while they wait.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TASK = REPOSITORY / "pipelines/tasks/sentiment_tweets.yaml"
_CPU = Path("/sys/fs/cgroup/cpu")
_UNIFIED = Path("/sys/fs/cgroup")
_PERIOD = 100_000


def train(count: int, epochs: float, variables: Mapping[str, str], groups: Sequence[Path] = ()) -> float:
    """Run so many commands at once, and return the mean of their training times."""
    command = [str(Path(sys.executable).with_name("lorry")), "run", str(TASK), "--force", "--json"]
    command += ["--set", f"train.epochs={epochs}"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    with contextlib.ExitStack() as stack:
        running = []
        for number in range(count):
            home = stack.enter_context(tempfile.TemporaryDirectory())
            entered = f"echo $$ > {groups[number] / 'cgroup.procs'}; " if groups else ""
            running.append(
                subprocess.Popen(
                    ["/bin/sh", "-c", f'{entered}exec "$@"', "sh", *command],
                    env={**inherited, **variables, "LORRY_HOME": home},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            )
        outputs = [process.communicate()[0] for process in running]
        return sum(json.loads(output)[0]["train_seconds"] for output in outputs) / count


@contextlib.contextmanager
def make_groups(count: int) -> Iterator[list[Path]]:
    """Make control groups of one processor each; none where this process may not."""
    is_old = (_CPU / "cpu.cfs_quota_us").exists()
    folders = [(_CPU if is_old else _UNIFIED) / f"lorry-bench-{os.getpid()}-{n}" for n in range(count)]
    made = []
    try:
        with contextlib.suppress(OSError):
            for folder in folders:
                folder.mkdir()
                made.append(folder)
                if is_old:
                    (folder / "cpu.cfs_period_us").write_text(str(_PERIOD))
                    (folder / "cpu.cfs_quota_us").write_text(str(_PERIOD))
                else:
                    (folder / "cpu.max").write_text(f"{_PERIOD} {_PERIOD}")
        yield made if len(made) == count else []
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=float, default=0.3)
    parser.add_argument("--active", action="store_true", help="Measure threads that spin as well: minutes.")
    options = parser.parse_args()
    for name, variables in {"passive": {}, "active": {"OMP_WAIT_POLICY": "ACTIVE"}}.items():
        if name == "active" and not options.active:
            continue
        alone = train(1, options.epochs, variables)
        print(f"{name}: one alone, all processors: {alone:.1f} s", flush=True)
        both = train(2, options.epochs, variables)
        print(f"{name}: two at once, all processors: {both:.1f} s, ratio {both / alone:.2f}", flush=True)
    with make_groups(2) as groups:
        if not groups:
            print("control groups cannot be made here")
            return
        alone = train(1, options.epochs, {}, groups)
        both = train(2, options.epochs, {}, groups)
    print(f"groups of one processor: one {alone:.1f} s, two {both:.1f} s, ratio {both / alone:.2f}")
    print("wanted: at most 1.30")


if __name__ == "__main__":
    main()
