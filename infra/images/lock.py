"""Write the lock files of the environment and of the images, beside this file in ``locks``: ``make lock``.

pyproject.toml says which versions may be; uv resolves them as one whole, and each file holds a part of that:

- ``constraints.txt``: what `make install` takes, for each Python and system, all extras together. Neither
  torch nor what one of its builds or versions bounds is there: which of them there is depends on the index.
- ``steps.txt``: the slim image.
- ``train.txt``: what the image for training holds on top of it, but for torch.
- ``serve.txt``: what that for serving holds on top of both.
- ``torch-cpu.txt``, ``torch-cuda.txt``: torch for either, with what only that one needs.
- ``build.txt``: what the wheel of the project is built with, which is in no image.

Those of the images are for one Python and one kind of machine, see ``_TARGET``. No address of an index is
in them, and no build tag: ``torch==2.13.0`` names the CPU wheel and the CUDA wheels, and the hashes tell
them apart. The hashes of CPU wheels, which are on an index of their own, are those that
``torch-cpu-wheels.txt`` lists, and that of the wheel that pip finds on this machine.

Usage: python infra/images/lock.py [UV [PYTHON]]     the defaults are those on the path; PYTHON has pip
"""

import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parents[1]
PROJECT = REPOSITORY / "pyproject.toml"
# Of these, torch and what it brings are kept apart: which build is installed is chosen with the image.
EXTRAS = ("train", "images", "signing")
_TARGET = ("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28")
_ANY_TARGET = ("--python-version", "3.11", "--universal")
# kfp's client of a cluster, and what that asks for: a step that trains on several nodes is one as well.
_ONLY_IN_TRAIN = ("kubernetes", "google-auth")
_ACCELERATION = re.compile(r"(nvidia|cuda|triton|bitsandbytes)\b")
_TORCH = re.compile(r"(torch|nvidia|cuda|triton|setuptools)(-|$)")
_PINNED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_HEADER = "# Written by `make lock`; infra/images/README.md tells what is in it.\n"
# A requirement and its hashes, as uv writes them: one line that is not indented, and those below it.
Blocks = dict[str, list[str]]


class Lock:
    """Resolves requirements with uv, all by the same versions."""

    def __init__(self, uv: str, scratch: Path) -> None:
        self._uv = uv
        self._scratch = scratch

    def resolve(
        self,
        *sources: str | Path,
        extras: Sequence[str] = (),
        constraints: Path | None = None,
        excluded: Iterable[str] = (),
        options: Sequence[str] = (*_TARGET, "--generate-hashes"),
    ) -> Blocks:
        """Return what sources ask for: files of requirements, or requirements as text."""
        files = [self._write(number, source) for number, source in enumerate(sources)]
        names = self._scratch / "excluded.txt"
        names.write_text("".join(f"{name}\n" for name in excluded), "utf-8")
        command = [
            *(self._uv, "pip", "compile", "--quiet", *options),
            *("--no-header", "--no-annotate", "--no-emit-index-url"),
            *("--excludes", names),
            *(part for extra in extras for part in ("--extra", extra)),
            *(["--constraints", constraints] if constraints is not None else []),
            *files,
        ]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return read_blocks(output)

    def _write(self, number: int, source: str | Path) -> Path:
        if isinstance(source, Path):
            return source
        path = self._scratch / f"source{number}.in"
        path.write_text(source, "utf-8")
        return path


def main(uv: str = "uv", python: str = sys.executable) -> None:
    """Write all lock files."""
    excluded = read_names(FOLDER / "excluded.txt")
    steps_in, torch_in = FOLDER / "steps.in", FOLDER / "torch.in"
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        lock = Lock(uv, scratch)
        tested = lock.resolve(PROJECT, options=(*_ANY_TARGET, "--all-extras"))
        constraints = {name: block for name, block in tested.items() if not _TORCH.match(name)}
        # With the version of torch that the images hold, which the constraints have to allow, too.
        whole = scratch / "whole.txt"
        extras = (*EXTRAS, "pipelines", "quantization", "serve")
        everything = lock.resolve(
            *(PROJECT, torch_in, format_blocks(constraints)), extras=extras, options=_TARGET
        )
        whole.write_text(format_blocks(everything), "utf-8")

        steps = lock.resolve(
            PROJECT, steps_in, extras=("signing",), constraints=whole, excluded=[*excluded, *_ONLY_IN_TRAIN]
        )
        train = lock.resolve(
            PROJECT, steps_in, extras=EXTRAS, constraints=whole, excluded=[*excluded, "torch"]
        )
        serve = lock.resolve(PROJECT, extras=("serve",), constraints=whole, excluded=excluded)
        cuda = lock.resolve(PROJECT, torch_in, extras=("quantization",), constraints=whole, excluded=excluded)
        acceleration = [name for name in cuda if _ACCELERATION.match(name)]
        cpu = lock.resolve(torch_in, constraints=whole, excluded=[*excluded, *acceleration])
        build = lock.resolve("\n".join(read_build_requirements(PROJECT)))
        torch = find_version(cuda["torch"])
        hashes = {*read_wheels(FOLDER / "torch-cpu-wheels.txt", torch), hash_wheel(python, torch, scratch)}
    cpu["torch"] = [
        f"torch=={torch} \\",
        *(f"    --hash=sha256:{digest} \\" for digest in sorted(hashes)[:-1]),
        f"    --hash=sha256:{max(hashes)}",
    ]
    train = subtract(train, steps)
    write_file("constraints", constraints)
    write_lock("steps", steps)
    write_lock("train", train)
    write_lock("serve", subtract(serve, steps | train))
    write_lock("torch-cuda", subtract(cuda, steps | train))
    write_lock("torch-cpu", subtract(cpu, steps | train))
    write_lock("build", build)


def read_blocks(text: str) -> Blocks:
    """Return the requirements of a lock file: the lines of each, by the name of its package.

    A package that has one version for some Pythons and another for others is one entry.
    """
    blocks: Blocks = {}
    name = ""
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _PINNED.match(line)
        if found:
            name = found["name"].lower()
        blocks.setdefault(name, []).append(line)
    return blocks


def read_names(path: Path) -> list[str]:
    """Return the lines of a file but for comments."""
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def read_build_requirements(project: Path) -> list[str]:
    """Return what a project is built with."""
    requirements: list[str] = tomllib.loads(project.read_text("utf-8"))["build-system"]["requires"]
    return requirements


def read_wheels(path: Path, version: str) -> list[str]:
    """Return the hashes of a list of torch's wheels, as sha256sum writes it, that are of a version."""
    rows = (line.split() for line in read_names(path))
    return [digest for digest, name in rows if name.startswith((f"torch-{version}-", f"torch-{version}+"))]


def find_version(block: Sequence[str]) -> str:
    """Return the version that a requirement is pinned to."""
    found = _PINNED.match(block[0])
    assert found is not None, block
    return found["version"]


def hash_wheel(python: str, version: str, scratch: Path) -> str:
    """Return the hash of the wheel of torch for CPUs that pip finds with this machine's settings."""
    target = scratch / "wheels"
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(target)]
    subprocess.run([python, "-m", "pip", "download", *options, f"torch=={version}"], check=True)
    (wheel,) = target.iterdir()
    if "+cpu" not in wheel.name:
        raise SystemExit(
            f"pip finds {wheel.name}, which is no wheel for CPUs: set PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS "
            "to the place that has them"
        )
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def subtract(blocks: Mapping[str, list[str]], others: Collection[str]) -> Blocks:
    """Return the requirements of packages that are not among others."""
    return {name: block for name, block in blocks.items() if name not in others}


def format_blocks(blocks: Mapping[str, list[str]]) -> str:
    """Return requirements as the text of a file, by name."""
    return "".join(f"{line}\n" for package in sorted(blocks) for line in blocks[package])


def write_lock(name: str, blocks: Mapping[str, list[str]]) -> None:
    """Write a lock file.

    Raises:
        SystemExit: A requirement has no hash.
    """
    for package, block in blocks.items():
        if not _HASH.search("\n".join(block)):
            raise SystemExit(f"{name}: {package} has no hash")
    write_file(name, blocks)


def write_file(name: str, blocks: Blocks) -> None:
    """Write a file of pinned requirements."""
    path = FOLDER / "locks" / f"{name}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(_HEADER + format_blocks(blocks), "utf-8")
    print(f"{path.relative_to(REPOSITORY)}: {len(blocks)} packages")


if __name__ == "__main__":
    main(*sys.argv[1:])
