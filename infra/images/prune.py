"""Remove from an image what no step needs, and say how much that was.

Usage: prune.py FOLDER     a folder of installed packages
       prune.py --base     what the base image has besides Python and its libraries
"""

import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

# numpy.testing, which other packages import, imports from numpy's own tests.
_TESTS, _TESTS_IMPORTED = ("test", "tests"), ("numpy",)
# Headers, build files and examples, by the package that has them.
_NEEDLESS = (
    "torch/include",
    "torch/share",
    "torch/bin/protoc*",
    "torch/test",
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/**/*.pxd",
    "pyarrow/**/*.pyx",
    # Arrow's own network protocol.
    "pyarrow/*arrow*_flight*",
    "pyarrow/_flight*",
    "numpy/**/include",
    "matplotlib/mpl-data/sample_data",
    "sklearn/datasets/data",
    "sklearn/datasets/images",
    # Of CUDA what compiles, profiles, or solves on several GPUs of one process: torch links to none of it.
    *("nvidia/*/include", "nvidia/*/lib/libcusolverMg.so*", "nvidia/*/lib/libnvrtc.alt.so*"),
    "nvidia/*/lib/libnvperf_host.so*",
    # transformers imports triton, but no step compiles with it, which takes a C compiler: there is none.
    *("triton/backends/nvidia/bin", "triton/backends/nvidia/include", "triton/backends/nvidia/lib/cupti*"),
    *("triton/profiler", "triton/instrumentation", "triton/_C/libproton.so", "triton/FileCheck"),
)
_CUDA_OF_TORCH = re.compile(r"^cuda\b.*= *'(\d+)\.(\d+)'", re.MULTILINE)
# Descriptions of all of Amazon's services; these are S3 and what gives credentials for it.
_SERVICES, _SERVICES_USED = "botocore/data", ("s3", "sts", "sso", "sso-oidc", "signin")
_PYTHON = ("ensurepip", "idlelib", "tkinter", "turtledemo", "lib2to3", "test", "config-*", "pydoc_data")
_INSTALLERS = (
    "pip",
    "pip-*",
    "setuptools",
    "setuptools-*",
    "wheel",
    "wheel-*",
    "pkg_resources",
    "_distutils_hack",
    "distutils-precedence.pth",
)
_SYSTEM = (
    *("usr/share/doc/*", "usr/share/man/*", "usr/share/info/*", "usr/share/locale/*", "usr/share/lintian"),
    *("var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*", "root/.cache", "tmp/*"),
    *("usr/local/bin/pip*", "usr/local/bin/idle*", "usr/local/bin/2to3*", "usr/bin/pip*"),
)


def main(place: str) -> None:
    """Remove what is needless in a place, and print the sizes before and after."""
    if place == "--base":
        roots, found = [Path("/usr"), Path("/var")], find_needless_of_base()
    else:
        roots, found = [Path(place)], find_needless_packages(Path(place))
    before = sum(map(measure, roots))
    for path in found:
        remove(path)
    after = sum(map(measure, roots))
    print(f"{place}: {before >> 20} MiB, {after >> 20} MiB without what no step needs")


def find_needless_packages(folder: Path) -> list[Path]:
    """Return what installed packages can do without."""
    found = [path for pattern in _NEEDLESS for path in folder.glob(pattern)]
    found += folder.rglob("*.a")
    for name in _TESTS:
        found += (
            path
            for path in folder.rglob(name)
            if path.is_dir()
            and path.relative_to(folder).parts[0] not in _TESTS_IMPORTED
            and path.parent != folder
        )
    found += find_other_builds(folder)
    if (folder / _SERVICES).is_dir():
        found += (
            path
            for path in (folder / _SERVICES).iterdir()
            if path.is_dir() and path.name not in _SERVICES_USED
        )
    return found


def find_other_builds(folder: Path) -> list[Path]:
    """Return the libraries of bitsandbytes that are for other GPUs than the torch that is there."""
    version = folder / "torch" / "version.py"
    found = _CUDA_OF_TORCH.search(version.read_text("utf-8")) if version.is_file() else None
    if found is None:
        return []
    kept = f"libbitsandbytes_cuda{found[1]}{found[2]}.so"
    builds = [
        path for kind in ("cuda", "rocm") for path in folder.glob(f"bitsandbytes/libbitsandbytes_{kind}*")
    ]
    # Without one of its own it takes another.
    return [path for path in builds if path.name != kept] if any(path.name == kept for path in builds) else []


def find_needless_of_base() -> list[Path]:
    """Return what the base image can do without; pip and its kind are among it."""
    library = Path(sysconfig.get_path("stdlib"))
    found = [path for pattern in _SYSTEM for path in Path("/").glob(pattern)]
    found += (path for name in _PYTHON for path in library.glob(name))
    places = (library / "site-packages", library / "dist-packages", Path("/usr/lib/python3/dist-packages"))
    found += (path for place in places for name in _INSTALLERS for path in place.glob(name))
    return found


def measure(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in walk(folder))


def walk(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, links as such."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            yield from walk(path)
        else:
            yield path


def remove(path: Path) -> None:
    """Remove a file or folder, which may be inside one that was removed before."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1])
