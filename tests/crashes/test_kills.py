"""Kills at each step of what a registry does most, and a few of the thousand of ``make kills``."""

import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).with_name("run_kills.py")


def run_kills(*arguments: str) -> str:
    """Kill; return how many recovered, as the script prints it."""
    command = [sys.executable, str(_SCRIPT), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    "operations",
    [
        ["publish", "register the first", "fetch"],
        pytest.param(["register", "promote", "rollback", "delete", "restore"], marks=pytest.mark.slow),
        pytest.param(["gc"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_what_is_killed_at_any_step_is_whole_or_absent_and_can_be_done_again(operations: list[str]) -> None:
    printed = run_kills("--store", "folder", "--everywhere", *operations)
    assert all(f"\n{operation}  " in printed for operation in operations)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "kills", "seed"), [("folder", 12, 1), ("s3", 12, 2)])
def test_kills_at_random_steps_on_either_store(kind: str, kills: int, seed: int) -> None:
    printed = run_kills("--store", kind, "--kills", str(kills), "--seed", str(seed))
    assert f"{kind}: {kills} of {kills} recovered" in printed
