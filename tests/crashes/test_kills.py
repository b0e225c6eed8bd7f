"""A few dozen of the kills that ``make kills`` makes a thousand of."""

import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).with_name("run_kills.py")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "kills", "seed"), [("folder", 24, 1), ("s3", 12, 2)])
def test_whatever_is_killed_is_whole_or_absent_and_can_be_done_again(
    kind: str, kills: int, seed: int
) -> None:
    command = [sys.executable, str(_SCRIPT), "--store", kind, "--kills", str(kills), "--seed", str(seed)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{kind}: {kills} of {kills} recovered" in ended.stdout
