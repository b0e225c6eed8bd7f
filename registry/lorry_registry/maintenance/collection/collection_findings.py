"""The categories and findings of a collection."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from lorry_registry.errors import LorryError

Kind = Literal["version", "adapter", "files", "checkpoints", "upload", "lease", "tombstone"]
"""What is removed: a version's files; a published adapter that no ledger names; files of a publication that
was cut short; the checkpoints of a training; an unfinished write; a lease or a tombstone that is over."""

DEFAULT_KEEP_LAST = 10
DEFAULT_GRACE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Rules:
    """What stays in any case.

    Attributes:
        keep_last: How many of the newest versions each task keeps.
        grace: Nothing that is younger is removed, and no task that was deleted more recently.
    """

    keep_last: int = DEFAULT_KEEP_LAST
    grace: timedelta = DEFAULT_GRACE


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that can be removed.

    Attributes:
        kind: What it is.
        name: The key, or the part of keys, by which the store knows it.
        reason: Why it can go.
        size: Its bytes.
        keys: All keys to remove, in this order.
        adapter_id: The adapter, if it is one.
        task: The task, if one is known.
        version: The version, if a ledger names it.
        written: When it was last written, by the clock of the store.
    """

    kind: Kind
    name: str
    reason: str
    size: int
    keys: tuple[str, ...]
    adapter_id: str | None = None
    task: str | None = None
    version: int | None = None
    written: datetime | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """An adapter that stays, and the first of the reasons why."""

    adapter_id: str
    reason: str
    size: int
    task: str | None = None
    version: int | None = None


@dataclass(slots=True)
class Plan:
    """What would be removed, what stays, and what cannot be decided.

    Attributes:
        now: When it was made, by the clock of the store.
        findings: What can be removed.
        kept: The adapters that stay.
        problems: What is damaged or cannot be read -> the error; it limits what is removed.
        strange: Keys among the adapters that no adapter names; they are left alone.
    """

    now: datetime
    findings: list[Finding] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    problems: dict[str, LorryError] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Sweep:
    """What was removed.

    Attributes:
        removed: What is gone now.
        spared: What stayed after all -> why: it came into use since the plan was made.
        problems: What could not be removed -> the error.
    """

    removed: list[Finding] = field(default_factory=list)
    spared: list[tuple[Finding, str]] = field(default_factory=list)
    problems: dict[str, LorryError] = field(default_factory=dict)
