"""The git commit that a task's file was read at, for the provenance of its adapters."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from lorry_registry.records.provenance import SourceRevision
from lorry_registry.text.addresses import has_secret, hide_secrets

_SECONDS = 10.0


def find_source(path: Path) -> SourceRevision | None:
    """Return the commit of the repository that a file lies in; None if it lies in none, or there is no git.

    A change to any file that git knows makes it dirty, and so does a task file that git does not know.
    """
    folder = path.resolve().parent
    commit = _ask_git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    changed = _ask_git(folder, "status", "--porcelain", "--untracked-files=no")
    known = _ask_git(folder, "ls-files", "--", path.resolve().name)
    if not commit or changed is None:
        return None
    address = _ask_git(folder, "config", "--get", "remote.origin.url") or ""
    try:
        return SourceRevision(
            uri=_remove_secrets(address), commit=commit, is_dirty=bool(changed) or not known
        )
    except ValidationError:
        return None


def find_sources(files: Mapping[str, Path]) -> dict[str, SourceRevision]:
    """Return the commits of tasks whose files lie in repositories.

    Args:
        files: Task -> its file.
    """
    found = {task: find_source(path) for task, path in files.items()}
    return {task: source for task, source in found.items() if source is not None}


def _remove_secrets(address: str) -> str:
    if not has_secret(address):
        return address
    # An address of the form user@host:path has a user that is no secret, and no scheme.
    return hide_secrets(address).replace("***@", "") if "://" in address else address


def _ask_git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints; None if it cannot say. It takes no lock, and runs no hook of the repository."""
    command = ["git", "-c", "core.fsmonitor=false", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None
