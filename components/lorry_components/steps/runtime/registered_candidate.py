"""A candidate that is trained already: a version that the gate refused, to be judged anew."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from lorry_registry.files.atomic_write import write_whole_text

RENEWED_DETAIL = "renewed"
"""The detail of the first step's outcome that names such a version."""

_NAME = "registered.json"


class RegisteredCandidate(BaseModel):
    """Which version stands in for a training. Its files are in the store.

    Attributes:
        version: The version.
        adapter_id: Its adapter.
        why: By what it was refused, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    adapter_id: str
    why: str = "another gate refused it"

    def save(self, folder: Path) -> None:
        """Write it into a candidate's folder, in place of an adapter."""
        folder.mkdir(parents=True, exist_ok=True)
        write_whole_text(folder / _NAME, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """Read it from a candidate's folder; None: the folder holds a new training."""
        path = folder / _NAME
        return cls.model_validate_json(path.read_text("utf-8")) if path.is_file() else None
