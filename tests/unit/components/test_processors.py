"""Libraries compute with the processors that a process may use, not with those of the machine."""

import subprocess
import sys
from pathlib import Path

import pytest

from lorry_components import processors
from lorry_components.processors import CPU_REQUEST_VARIABLE, count_processors, limit_threads, read_cpu_limit

POD = "/kubepods.slice/pod7/container9"


def write_files(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", "ascii")
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/"}, None),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        # A container that sees the groups of its node.
        ({"proc/self/cgroup": f"0::{POD}", f"sys/fs/cgroup{POD}/cpu.max": "50000 100000"}, 0.5),
        # The pod as a whole has less than this container of it.
        (
            {
                "proc/self/cgroup": f"0::{POD}",
                f"sys/fs/cgroup{POD}/cpu.max": "400000 100000",
                "sys/fs/cgroup/kubepods.slice/pod7/cpu.max": "300000 100000",
            },
            3.0,
        ),
        # Version 1, by the path on the node, which the container does not see.
        (
            {
                "proc/self/cgroup": f"9:memory:{POD}\n4:cpu,cpuacct:{POD}\n1:cpuset:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
    ],
)
def test_the_limit_of_the_control_groups(tmp_path: Path, files: dict[str, str], limit: float | None) -> None:
    assert read_cpu_limit(write_files(tmp_path, files)) == limit


@pytest.mark.parametrize(
    ("quota", "request_", "count"),
    [
        ("max", "", 16),
        ("max", "2", 2),
        ("max", "0.25", 1),
        ("max", "2.5", 3),
        ("max", "64", 16),
        ("150000", "1", 2),
        ("10000", "8", 1),
    ],
)
def test_the_limit_counts_then_the_request_then_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, request_: str, count: int
) -> None:
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda _: set(range(16)))
    files = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": f"{quota} 100000"}
    root = write_files(tmp_path, files)
    assert count_processors({CPU_REQUEST_VARIABLE: request_}, root) == count


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "2"), ({"OMP_NUM_THREADS": "7"}, "7"), ({"OMP_NUM_THREADS": "1"}, "1")]
)
def test_processes_share_the_processors_unless_a_person_says_otherwise(
    given: dict[str, str], expected: str
) -> None:
    environment = dict(given)
    limit_threads(environment, 5, processes=2)
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == expected
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"


def test_there_is_a_thread_even_where_processes_are_many() -> None:
    environment: dict[str, str] = {}
    limit_threads(environment, 2, processes=4)
    assert environment["OMP_NUM_THREADS"] == "1"


def test_torch_computes_with_what_is_reserved_for_the_pod() -> None:
    code = (
        "from lorry_components.processors import limit_own_threads; limit_own_threads(); "
        "import torch; print(torch.get_num_threads())"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, env={CPU_REQUEST_VARIABLE: "0.5"}, capture_output=True, check=True)
    assert done.stdout.strip() == b"1"
