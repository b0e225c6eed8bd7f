"""The newest state of each task's ledger seen on this machine, to notice when an older one is put back.

An old head was signed as well as the present one. Only a reader that has seen a later one can tell that it is
old: so the newest event that was seen is kept on this machine, out of reach of those who write to the store.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorry_registry.errors import StoreError
from lorry_registry.files.atomic_write import write_whole
from lorry_registry.files.digests import canonical_json, digest_bytes
from lorry_registry.manifest import Digest


class SeenHead(BaseModel):
    """The newest event of a task that this machine has seen.

    Attributes:
        registry: The id of the registry.
        sequence: Its place in the history.
        event: Its digest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    registry: str
    sequence: int = Field(ge=1)
    event: Digest


class SeenHeads:
    """The newest events seen, in a folder of this machine.

    Args:
        folder: Where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, address: str, task: str) -> SeenHead | None:
        """Return the newest event seen of a task in the store at an address, or None.

        Call it before the head is read: a process beside this one may see a newer head in between.

        Raises:
            StoreError: What is kept cannot be read.
        """
        path = self.locate(address, task)
        try:
            return SeenHead.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise StoreError(
                "what this machine has seen of the task's ledger cannot be read",
                where=str(path),
                todo="if the ledger is as it should be, remove this file",
            ) from error

    def keep(self, address: str, task: str, seen: SeenHead) -> None:
        """Keep an event as the newest one seen.

        Raises:
            StoreError: It cannot be written.
        """
        path = self.locate(address, task)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, canonical_json(seen.model_dump(mode="json")))
        except OSError as error:
            raise StoreError(
                f"cannot keep what was seen of the task's ledger: {error.strerror or error}",
                where=str(path),
                todo="check that the disk has space and that this user may write there, or set LORRY_HOME",
            ) from error

    def locate(self, address: str, task: str) -> Path:
        """Return the file that is kept for a task of the store at an address."""
        return self._folder / digest_bytes(address.encode())[7:39] / f"{task}.json"


def check_not_older(seen: SeenHead | None, found: SeenHead | None, *, task: str, file: Path) -> None:
    """Raise if a head is older than one seen before, or another one in its place.

    Args:
        seen: What this machine has seen.
        found: What is there now; None: the task has no ledger.
        task: The task.
        file: Where it is kept what was seen.

    Raises:
        StoreError: So it is.
    """
    if seen is None or found == seen:
        return
    if found is None:
        what = f"there is no ledger, and this machine has seen its event {seen.sequence}: it was removed"
    elif found.registry != seen.registry:
        what = "this is another registry than the one that this machine has seen here"
    elif found.sequence < seen.sequence:
        what = (
            f"the ledger ends with event {found.sequence}, and this machine has seen event {seen.sequence}: "
            "an older state was put back"
        )
    elif found.sequence == seen.sequence:
        what = f"event {found.sequence} is another one than this machine has seen: the ledger was replaced"
    else:
        return
    raise StoreError(
        what,
        where=task,
        todo=f"restore the ledger; if it was put back on purpose, from a backup, remove {file} here",
    )
