"""The tasks that a change in a repository has touched: their files, local data and local bases."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lorry_registry.errors import UsageError
from lorry_registry.tasks.task_spec import TaskSpec

_SECONDS = 60.0


def choose_touched(tasks: Mapping[Path, TaskSpec], reference: str) -> list[TaskSpec]:
    """Return the tasks of which git knows a change since a reference.

    A change is one of the task file, of its data or of its base, committed or not, as far as they lie in the
    file's repository. What is elsewhere, as on S3, git knows nothing of; leave the reference out to look at
    all tasks.

    Args:
        tasks: Task file -> its task.
        reference: A commit, a branch or a tag.

    Raises:
        UsageError: A file lies in no repository, or git does not know the reference.
    """
    changed: dict[Path, list[Path]] = {}
    touched = []
    for path, spec in tasks.items():
        root = Path(_ask_git(path.resolve().parent, "rev-parse", "--show-toplevel", why=str(path)))
        if root not in changed:
            changed[root] = _list_changed(root, reference)
        watched = [path.resolve()]
        watched += [Path(spec.data.source).resolve()] if spec.data.is_local else []
        watched += [Path(spec.base.model).resolve()] if spec.base.is_folder else []
        if any(_is_within(file, watched) for file in changed[root]):
            touched.append(spec)
    return touched


def _list_changed(root: Path, reference: str) -> list[Path]:
    # What looks like an option is none, and neither is what looks like a file.
    _ask_git(root, "rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}", why=reference)
    tracked = _ask_git(root, "diff", "--name-only", "-z", "--no-ext-diff", f"{reference}^{{commit}}", "--")
    new = _ask_git(root, "ls-files", "--others", "--exclude-standard", "-z")
    return [root / name for name in (*tracked.split("\0"), *new.split("\0")) if name]


def _is_within(file: Path, watched: Sequence[Path]) -> bool:
    return any(file == path or file.is_relative_to(path) for path in watched)


def _ask_git(folder: Path, *arguments: str, why: str = "") -> str:
    """Return what git prints. It takes no lock, and runs no hook of the repository."""
    command = ["git", "-c", "core.fsmonitor=false", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(
            f"git cannot be asked: {error}", where="--changed-since", todo="install git, or leave it out"
        ) from error
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise UsageError(
            f"git does not know {why or folder}{f': {lines[-1]}' if lines else ''}",
            where="--changed-since",
            todo="give a commit, branch or tag of the repository that the task files are in",
        )
    return done.stdout.decode("utf-8", "surrogateescape").strip("\n")
