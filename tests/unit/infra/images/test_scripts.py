"""What the shell scripts say when something is missing."""

import os
import re
import subprocess
from pathlib import Path

import pytest

INFRA = Path(__file__).parents[4] / "infra"
MISMATCH = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\n    torch==2.13.0 from somewhere"


def write_program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    (folder / name).chmod(0o755)


def run(command: list[str], programs: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("lock", "said", "expected"),
    [
        ("torch-cpu.txt", MISMATCH, True),
        ("torch-cpu.txt", "no space left on device", False),
        ("torch-cuda.txt", MISMATCH, False),
    ],
)
def test_an_index_without_the_build_for_cpus_is_named(
    lock: str, said: str, expected: bool, tmp_path: Path
) -> None:
    write_program(tmp_path, "python3", f"echo '{said}' >&2; exit 1")
    done = run(["sh", str(INFRA / "images/install.sh"), f"/usr/share/lorry/{lock}"], tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert ("or build with TORCH=cuda" in done.stderr) is expected


@pytest.mark.parametrize("place", ["/lib", "/usr/lib"])
def test_owners_of_libraries_are_found_by_either_name(place: str, tmp_path: Path) -> None:
    """On Debian 12 dpkg knows /lib/..., on later ones /usr/lib/...."""
    done = find_owners(tmp_path, known=f"{place}/x/libreadline.so.8")
    assert (done.returncode, done.stdout) == (0, "libreadline8\n"), done.stderr


def test_a_library_without_a_package_is_named(tmp_path: Path) -> None:
    done = find_owners(tmp_path, known="/lib/x/libother.so.1")
    assert done.returncode != 0
    assert "no Debian package has /usr/lib/x/libreadline.so.8" in done.stderr
    assert "not reached" not in done.stdout


def find_owners(programs: Path, *, known: str) -> subprocess.CompletedProcess[str]:
    write_program(programs, "ldd", "echo 'libreadline.so.8 => /lib/x/libreadline.so.8 (0x1)'")
    write_program(programs, "realpath", "echo /usr/lib/x/libreadline.so.8")
    write_program(programs, "dpkg-query", f'[ "$2" = {known} ] && echo "libreadline8:amd64: $2" || exit 1')
    source = (INFRA / "ci/make-base-image.sh").read_text("utf-8")
    found = re.search(r"^owners_of_libraries\(\) \{.*?^\}", source, re.MULTILINE | re.DOTALL)
    assert found is not None
    script = "set -euo pipefail\nprefix=/usr/local version=3 work=/nowhere python=python3\n"
    script += f'{found[0]}\nowners=$(owners_of_libraries)\necho "$owners"'
    return run(["bash", "-c", script], programs)
