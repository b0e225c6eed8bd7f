"""The tasks that were found to work on their bases, kept so that no check is repeated.

Where the base's files do not say enough, the check builds it without its weights, for which torch and
transformers are imported: that takes several times as long as everything else ``lorry validate`` does. Only
what passed is kept. A training checks its task again in any case.
"""

import contextlib
import importlib.metadata
from pathlib import Path

from lorry_registry.files.digests import digest_document
from lorry_registry.tasks.task_spec import TaskSpec

# Of a task, what says nothing of whether it works on its base.
_IRRELEVANT: dict[str, bool | set[str]] = {
    "name": True,
    "description": True,
    "owner": True,
    "data": {"source"},
}
_LIBRARIES = ("lorry", "torch", "transformers", "peft")
# Empty files, the older half of which goes.
_MOST_ENTRIES = 10_000


class PassedChecks:
    """Checks that passed, as empty files of a folder that several processes share.

    Args:
        folder: The folder. One that cannot be written makes checks slower and never wrong. Its grandparent,
            LORRY_HOME, is not made for it: checking a task file starts no registry.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, spec: TaskSpec, base: Path) -> Path:
        """Return the file whose presence says that a task works on its base as both are now.

        Args:
            spec: The task.
            base: The base, whose files are recognised by their sizes and times.
        """
        files = [
            (str(path.relative_to(base)), path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(base.rglob("*"))
            if path.is_file()
        ]
        known = {
            "task": spec.model_dump(mode="json", exclude=_IRRELEVANT),
            "base": [str(base), *map(list, files)],
            "versions": [_find_version(name) for name in _LIBRARIES],
        }
        return self._folder / digest_document(known).removeprefix("sha256:")

    def add(self, passed: Path) -> None:
        """Keep that a check passed."""
        with contextlib.suppress(OSError):
            for folder in (self._folder.parent, self._folder):
                folder.mkdir(exist_ok=True)
            passed.touch()
            kept = list(self._folder.iterdir())
            if len(kept) > _MOST_ENTRIES:
                for path in sorted(kept, key=lambda path: path.stat().st_mtime)[: len(kept) // 2]:
                    path.unlink(missing_ok=True)


def _find_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
