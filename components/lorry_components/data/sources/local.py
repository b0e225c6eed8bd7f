"""Sources on this machine's disk: which readable files there are."""

import re
from dataclasses import dataclass
from pathlib import Path

from lorry_components.data.faults import FaultLog, refuse_source
from lorry_components.data.layout import KNOWN_ENDINGS, find_format, list_names, suggest_close
from lorry_registry.tasks.input_specs import DataSpec

# With one slash where it became a path.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_SOURCE_TODO = "give data.source the path of a file, or of a folder of files"


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """The readable files of a local source.

    Attributes:
        folder: Where they are.
        names: Their names in it, sorted; at least one.
        in_folder: Whether the source is the folder, not one file of it.
    """

    folder: Path
    names: tuple[str, ...]
    in_folder: bool


def list_local_files(source: str) -> LocalFiles:
    """Find the readable files directly in a folder, or check that a file is one.

    Hidden files and files with other endings are passed over.

    Raises:
        InvalidDataError: Nothing is there, nothing readable is in it, or a link leads out of the folder.
    """
    try:
        return _find_files(source, Path(source))
    except OSError as error:
        reason = error.strerror or str(error)
        refuse_source(source, "data.source", f"cannot be looked at: {reason}", _SOURCE_TODO)


def measure_source(data: DataSpec) -> int:
    """Return the size of local data on the disk, in bytes; 0 if they are elsewhere or cannot be looked at."""
    source = Path(data.source)
    try:
        paths = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
        return sum(path.stat().st_size for path in paths) if data.is_local else 0
    except OSError:
        return 0


def _find_files(source: str, path: Path) -> LocalFiles:
    if path.is_dir():
        return LocalFiles(path, _list_folder(path), in_folder=True)
    if not path.exists():
        if _ADDRESS.match(source):
            refuse_source(source, "data.source", "is an address, and files are read here", _SOURCE_TODO)
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = suggest_close(path.name, beside)
        refuse_source(source, "data.source", "there is no such file or folder", _SOURCE_TODO, remedy=close)
    if not path.is_file():
        refuse_source(source, "data.source", "is neither a file nor a folder", _SOURCE_TODO)
    if find_format(path.name) is None:
        refuse_source(source, "data.source", "its name has no known ending", f"it may end in {KNOWN_ENDINGS}")
    return LocalFiles(path.parent, (path.name,), in_folder=False)


def _list_folder(folder: Path) -> tuple[str, ...]:
    log = FaultLog(str(folder))
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    readable = [entry for entry in entries if find_format(entry.name)]
    root = folder.resolve()
    for entry in readable:
        if not entry.resolve().is_relative_to(root):
            log.add_file(entry.name, "is a link that leads out of the folder", "put the file itself there")
        elif not entry.is_file():
            log.add_file(entry.name, "is not a file", "move it elsewhere")
    log.raise_if_any()
    if not readable:
        there = list_names(entry.name for entry in entries)
        refuse_source(
            str(folder),
            "data.source",
            f"the folder has no file to read; it has {there}",
            f"a file to read ends in {KNOWN_ENDINGS}",
        )
    return tuple(entry.name for entry in readable)
