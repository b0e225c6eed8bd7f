"""Let every reader of documents read a hundred thousand inputs that are nearly right, or not at all.

    python tests/fuzz/run_fuzz.py                         # 100,000 inputs, some minutes
    python tests/fuzz/run_fuzz.py --inputs 2000 --only manifest,head
    python tests/fuzz/run_fuzz.py --target manifest --input 1234   # one of them, to look at

Each input has to give a result or a ``LorryError`` that says what, where and what to do: never another
exception, more than some seconds, much memory, or a file outside the folder that it may write to. The exit
code is 1 if one does not.
"""

import argparse
import collections
import contextlib
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.targets import Target, check_answer, list_component_targets, list_registry_targets

_SECONDS = 20
_GROWTH_MIB = 512
_MOST_FINDINGS = 5


class _TooSlowError(BaseException):
    """An input takes too long; no reader may catch it."""


def main() -> int:
    """Run the inputs, print what came of them, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="how many in all")
    parser.add_argument("--only", help="names of targets, with commas between them")
    parser.add_argument("--target", help="the target of a single input")
    parser.add_argument("--input", type=int, help="the number of a single input")
    given = parser.parse_args()
    targets = {**list_registry_targets(), **list_component_targets()}
    if given.target:
        content = targets[given.target].make_input(given.input)
        print(content[:2000])
        with tempfile.TemporaryDirectory() as folder:
            print("accepted:", check_answer(targets[given.target], content, Path(folder)))
        return 0
    chosen = {name: targets[name] for name in (given.only or ",".join(targets)).split(",")}
    return 1 if run_targets(chosen, given.inputs) else 0


def run_targets(targets: Mapping[str, Target], inputs: int) -> int:
    """Run inputs on all targets by their shares, print a line for each, and return the number of findings."""
    whole = sum(target.share for target in targets.values())
    found = total = 0
    print(
        f"{'target':<24}{'inputs':>8}{'accepted':>10}{'refused':>9}{'findings':>10}{'seconds':>9}{'slowest':>9}"
    )
    for name, target in targets.items():
        count = round(inputs * target.share / whole)
        started = time.perf_counter()
        results, slowest = run_target(name, target, count)
        found, total = found + results["finding"], total + count
        print(
            f"{name:<24}{count:>8,}{results['accepted']:>10,}{results['refused']:>9,}{results['finding']:>10,}"
            f"{time.perf_counter() - started:>9.1f}{slowest:>9.2f}",
            flush=True,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{total:,} inputs, {found} findings, at most {peak:,.0f} MiB of memory")
    return found


def run_target(name: str, target: Target, count: int) -> tuple[collections.Counter[str], float]:
    """Run inputs on one target; print its first findings, and return what came of them and the slowest."""
    results: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory(prefix="lorry-fuzz-") as root:
        outside = Path(root)
        for number in range(count):
            folder = outside / "inside"
            folder.mkdir()
            content, began = target.make_input(number), time.perf_counter()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                with limit_seconds(_SECONDS):
                    accepted = check_answer(target, content, folder)
                if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 > _GROWTH_MIB:
                    raise AssertionError("it takes too much memory")
                if [entry.name for entry in outside.iterdir()] != ["inside"]:
                    raise AssertionError("it left a file outside of its folder")
                results["accepted" if accepted else "refused"] += 1
            except (Exception, _TooSlowError):  # noqa: BLE001 -- whatever it is, it is a finding
                results["finding"] += 1
                if results["finding"] <= _MOST_FINDINGS:
                    print(f"{name}, input {number}: {content[:300]!r}\n{traceback.format_exc()[-900:]}")
            slowest = max(slowest, time.perf_counter() - began)
            shutil.rmtree(folder, ignore_errors=True)
            for entry in outside.iterdir():
                entry.unlink()
    return results, slowest


@contextlib.contextmanager
def limit_seconds(seconds: int) -> Iterator[None]:
    """Raise an error that nobody catches when what is done takes too long."""

    def end(*_: object) -> None:
        raise _TooSlowError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
