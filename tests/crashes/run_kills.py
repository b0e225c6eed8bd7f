"""Kills the registry's operations at random steps, a thousand times, and counts what became of it.

    make kills
    python tests/crashes/run_kills.py --kills 200 --store s3 --seed 7

Each kill is followed by a look at what is left and by the same operation once more. The exit code is 1 if
anything was half there, or was not as it should be in the end.
"""

import argparse
import contextlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crashes.killing import Kill, Killer, count_kills, describe_problem, prepare_process
from crashes.operations import ON_ANY_STORE, ON_S3

from fixtures.s3_server import run_server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="how many, on all stores together")
    parser.add_argument("--store", choices=("folder", "s3", "both"), default="both")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of steps")
    parser.add_argument(
        "--everywhere", nargs="+", help="kill these operations at each of their steps instead"
    )
    options = parser.parse_args()
    # A shell starts what runs in its background with Ctrl-C ignored. A server must not outlive this either.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    kinds = ("folder", "s3") if options.store == "both" else (options.store,)
    problems: list[Kill] = []
    with tempfile.TemporaryDirectory(prefix="lorry-kills-") as folder:
        empty_mlflow = prepare_process(Path(folder))
        for kind in kinds:
            root = Path(folder) / kind
            root.mkdir()
            with serve_store(kind, root):
                killer = Killer(root, kind, empty_mlflow)
                operations = ON_S3 if kind == "s3" else ON_ANY_STORE
                if options.everywhere:
                    named = {each.name: each for each in operations}
                    chosen = (killer.kill_everywhere(named[name]) for name in options.everywhere)
                    kills = run_kills(itertools.chain.from_iterable(chosen), kind)
                else:
                    count, generator = options.kills // len(kinds), random.Random(options.seed)  # noqa: S311
                    kills = run_kills(killer.kill_at_random(operations, count, generator), kind)
            problems += [kill for kill in kills if kill.problem]
    for kill in problems:
        print(f"\n{describe_problem(kill)}")
    return 1 if problems else 0


@contextlib.contextmanager
def serve_store(kind: str, root: Path) -> Iterator[None]:
    """Run an S3 server and let boto3 find it, if the store is on S3."""
    if kind == "folder":
        yield
        return
    folder = root / "seaweed"
    folder.mkdir()
    with run_server(folder) as server:
        os.environ.update(server.list_variables())
        yield


def run_kills(planned: Iterator[Kill], kind: str) -> list[Kill]:
    """Kill, and print a table."""
    started = time.monotonic()
    kills = []
    # After Ctrl-C what was found until then is told.
    with contextlib.suppress(KeyboardInterrupt):
        for kill in planned:
            kills.append(kill)
            if len(kills) % 50 == 0:
                print(f"{kind}: {len(kills)}, {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(f"\n{kind}: {len(kills)} kills in {time.monotonic() - started:.0f} s")
    print(f"\n{'operation':20}  {'step':52}  {'kills':>5}  {'problems':>8}  left")
    for operation, step, number, states, wrong in count_kills(kills):
        print(f"{operation:20}  {step:52}  {number:5}  {wrong:8}  {states}")
    met = {(kill.operation, kill.step) for kill in kills}
    recovered = sum(not kill.problem for kill in kills)
    print(f"\n{kind}: {recovered} of {len(kills)} recovered; {len(met)} different steps were met")
    return kills


if __name__ == "__main__":
    sys.exit(main())
