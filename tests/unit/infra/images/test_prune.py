"""What is removed from an image, and what looks alike and is needed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NEEDLESS = (
    "pandas/tests/test_frame.py",
    "scipy/stats/tests/data/large.npy",
    "torch/include/torch/torch.h",
    "torch/bin/protoc",
    "pyarrow/libarrow_flight.so.2500",
    "pyarrow/libarrow_python_flight.so",
    "botocore/data/ec2/2016-11-15/service-2.json.gz",
    "thing/libthing.a",
    "nvidia/cu13/include/cuda.h",
    "nvidia/cusolver/lib/libcusolverMg.so.12",
    "nvidia/cu13/lib/libnvrtc.alt.so.13",
    "triton/backends/nvidia/bin/ptxas",
    "triton/backends/nvidia/lib/cupti/libcupti.so",
    "triton/_C/libproton.so",
    "bitsandbytes/libbitsandbytes_cuda128.so",
    "bitsandbytes/libbitsandbytes_rocm714.so",
)
NEEDED = (
    # numpy.testing imports from there.
    "numpy/_core/tests/_natype.py",
    # Processes that load data share memory through it.
    "torch/bin/torch_shm_manager",
    # pyarrow itself is linked to it.
    "pyarrow/libarrow_substrait.so.2500",
    "botocore/data/s3/2006-03-01/service-2.json.gz",
    "botocore/data/endpoints.json",
    # A package of that name would be one of its own, not somebody's tests.
    "tests/__init__.py",
    "torch/testing/__init__.py",
    "torch/version.py",
    "nvidia/cu13/lib/libcusolver.so.12",
    "nvidia/cu13/lib/libnvrtc.so.13",
    "triton/_C/libtriton.so",
    "triton/backends/nvidia/lib/libdevice.10.bc",
    "bitsandbytes/libbitsandbytes_cuda130.so",
    "bitsandbytes/libbitsandbytes_cpu.so",
)


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for name in (*NEEDLESS, *NEEDED):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
    (tmp_path / "torch/version.py").write_text("cuda: Optional[str] = '13.0'\nhip = None\n", "utf-8")
    return tmp_path


def test_what_is_needed_stays(load_script: Callable[[str], Any], packages: Path) -> None:
    script = load_script("prune")
    script.main(str(packages))
    left = {str(path.relative_to(packages)) for path in script.walk(packages)}
    assert left == set(NEEDED)
    # Nothing is left to do, which is no failure.
    script.main(str(packages))


def test_it_says_how_much_it_removed(
    load_script: Callable[[str], Any], packages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (packages / "pandas" / "tests" / "large").write_bytes(b"x" * (3 << 20))
    load_script("prune").main(str(packages))
    assert capsys.readouterr().out == f"{packages}: 3 MiB, 0 MiB without what no step needs\n"


@pytest.mark.parametrize("cuda", ["None", "'14.1'"])
def test_builds_stay_where_none_is_known_to_be_used(
    load_script: Callable[[str], Any], packages: Path, cuda: str
) -> None:
    (packages / "torch/version.py").write_text(f"cuda: Optional[str] = {cuda}\n", "utf-8")
    assert load_script("prune").find_other_builds(packages) == []
