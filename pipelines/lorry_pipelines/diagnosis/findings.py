"""The findings of a check."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from lorry_registry.errors import LorryError

Level = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a diagnosis. It holds no secret.

    Attributes:
        subject: What was looked at, in a word or two.
        level: ``ok``; ``warning``: something is limited; ``failure``: something that is set up does not work.
        text: What was found.
        todo: What to do about it; "" if nothing need be done.
        details: The same for machines.
    """

    subject: str
    level: Level
    text: str
    todo: str = ""
    details: Mapping[str, JsonValue] = field(default_factory=dict)

    @classmethod
    def from_error(cls, subject: str, error: LorryError, level: Level = "failure") -> "Finding":
        """Return what an error of Lorry's says, as a finding."""
        return cls(subject, level, f"{error.where}: {error.what}" if error.where else error.what, error.todo)
