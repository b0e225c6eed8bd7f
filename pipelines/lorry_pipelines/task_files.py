"""A search for task files: by their paths, by folders, or by the names of their tasks."""

from collections.abc import Sequence
from pathlib import Path

from lorry_registry.errors import InvalidTaskError, UsageError
from lorry_registry.tasks.task_document import load_document, suggest_name

TASKS_FOLDER = "tasks"
_ENDINGS = (".yaml", ".yml")


def find_task_files(wanted: Sequence[str], folder: Path) -> list[Path]:
    """Return the files of tasks, each once.

    Args:
        wanted: Files, folders whose files are all meant, or names of tasks whose files are in ``tasks/`` or
            are called like them; none: all files in ``tasks/``.
        folder: The folder that ``tasks/`` and relative paths are in.

    Raises:
        UsageError: There is no such file or task, or no file at all.
    """
    if not wanted:
        return _list_folder(folder / TASKS_FOLDER, "give task files, or keep them in tasks/")
    found: list[Path] = []
    for text in wanted:
        path = folder / text
        if path.is_dir():
            found += _list_folder(path, "give a folder of task files")
        elif path.is_file() or path.suffix in _ENDINGS:
            # A file that is missing is reported when it is read.
            found.append(path)
        else:
            found.append(_find_by_name(text, folder))
    return list(dict.fromkeys(found))


def name_task_file(name: str, path: Path, folder: Path) -> str:
    """Return what to write for a task on the command line: its name, or else its file.

    Args:
        name: The task's name.
        path: Its file.
        folder: The folder that the command line is in.
    """
    tasks = folder / TASKS_FOLDER
    # In tasks/ there may be another file of this name.
    if path.parent == tasks or (not tasks.is_dir() and path in _list_namesakes(name, folder)):
        return name
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _list_folder(folder: Path, todo: str) -> list[Path]:
    files = sorted(path for path in folder.glob("*") if path.suffix in _ENDINGS) if folder.is_dir() else []
    if not files:
        raise UsageError("there are no task files", where=str(folder), todo=todo)
    return files


def _find_by_name(name: str, folder: Path) -> Path:
    tasks = folder / TASKS_FOLDER
    namesakes = _list_namesakes(name, folder)
    if namesakes and not tasks.is_dir():
        return namesakes[0]
    named = {_read_name(path): path for path in _list_folder(tasks, f"give the file of {name}")}
    if name not in named and not namesakes:
        raise UsageError(
            f"there is no file and no task {name!r}", where=str(tasks), todo=suggest_name(name, named)
        )
    return named.get(name) or namesakes[0]


def _list_namesakes(name: str, folder: Path) -> list[Path]:
    """Return the files of a folder that are called like a task and describe it, as ``lorry init`` writes."""
    paths = [folder / f"{name}{ending}" for ending in _ENDINGS]
    return [path for path in paths if path.is_file() and _read_name(path) == name]


def _read_name(path: Path) -> str:
    """Return the name that a task file gives its task; its own name if it cannot be read as it should."""
    try:
        name = load_document(path).content.get("name")
    except InvalidTaskError:
        # Its faults are reported when it is read as a task.
        return path.stem
    return name if isinstance(name, str) else path.stem
