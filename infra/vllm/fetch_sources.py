"""Fetch the newest vLLM's Python sources, for the contract tests of the plugin for it.

    python infra/vllm/fetch_sources.py build/vllm

pip downloads the wheel, of which the Python files alone are kept, and the few libraries that they import.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

_IMPORTED = (
    "msgspec",
    "pyzmq",
    "regex",
    "cloudpickle",
    "cachetools",
    "py-cpuinfo",
    "blake3",
    "cbor2",
    "pybase64",
)
_PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def extract_sources(wheel: Path, target: Path) -> None:
    """Unpack a wheel's Python files and its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".py") or ".dist-info/" in name]
        archive.extractall(target, names)


def main() -> None:
    """Fetch, and lay everything into the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", type=Path)
    target: Path = parser.parse_args().target
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*_PIP, "download", "--no-deps", "--dest", folder, "vllm"], check=True)
        extract_sources(next(Path(folder).glob("vllm-*.whl")), target)
    subprocess.run([*_PIP, "install", "--no-deps", "--target", target, "--upgrade", *_IMPORTED], check=True)


if __name__ == "__main__":
    main()
