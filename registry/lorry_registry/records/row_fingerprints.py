"""Fingerprints of the rows that an adapter was made from, kept beside it in the store; they hold no text.

They answer two questions later: was this row trained on, so that no adapter is judged by rows that it has
learned; and how many rows were added, removed and relabelled since.

Each distinct input becomes a number below ``span``, which is 65,536 times the number of inputs, drawn by the
SHA-256 of a salt and its text, and a check of two bytes, drawn from the input with its labels. A known input
is always recognised; a new one is taken for a known one with a probability of at most 1 in 65,536, and a
changed label is overlooked with the same probability.

That is also what a reader of the fingerprints learns: no text can be recovered, but a guessed text can be
checked, together with a guess of its label, and one wrong guess in 65,536 is confirmed. The salt is the
digest of the data, so that fingerprints of different data cannot be compared. They stay in the store: an
adapter that is pulled, exported or shown in MLflow comes without them.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from lorry_registry.errors import AdapterRejectedError
from lorry_registry.files.digests import canonical_json, digest_bytes
from lorry_registry.manifest import Digest, Manifest
from lorry_registry.records.sidecars import read_sidecar, sidecar_key, store_sidecar
from lorry_registry.stores import Store

NUMBERS_AN_INPUT = 65_536
"""Of inputs that are new, at most one in so many is taken for one that was there."""

Key = tuple[str, ...]
"""The texts of an input; the second one is its context, if the task type has any."""

Labels = Mapping[Key, Sequence[JsonValue]]
"""The distinct inputs of a table, each with its distinct labels, sorted."""

Number = Annotated[int, Field(ge=0)]
Fingerprint = tuple[Number, Annotated[int, Field(ge=0, lt=1 << 16)]]

_FOLDER = "row-fingerprints"
_NAME = "its list of row fingerprints"
_TODO = "restore it from a backup, or train the adapter again"


@dataclass(frozen=True, slots=True)
class RowChanges:
    """How the rows of a table differ from those that an adapter was made of; equal inputs count once.

    Attributes:
        added: Inputs that were not there.
        removed: Inputs that are not there any more.
        relabelled: Inputs whose labels are others.
    """

    added: int
    removed: int
    relabelled: int

    def describe(self) -> str:
        """Return the counts in words; "" if all are 0."""
        counts = {"added": self.added, "removed": self.removed, "relabelled": self.relabelled}
        *first, last = [f"{count:,} {verb}" for verb, count in counts.items() if count] or [""]
        if not last:
            return ""
        listed = f"{', '.join(first)} and {last}" if first else last
        return f"{listed} {'row' if sum(counts.values()) == 1 else 'rows'}"


class RowFingerprints(BaseModel):
    """The fingerprints of all rows of an adapter's data.

    Attributes:
        format: The version of this form.
        salt: The digest of the data; it goes into each number.
        span: What each number is below.
        trained: Number and check of each input that decided what was learned, sorted.
        held_out: Those of all other inputs.
        contexts: Where rows are recognised by their context alone, the numbers of the contexts that were
            trained on; None: rows are recognised by all of their texts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    salt: Digest
    span: Annotated[int, Field(ge=NUMBERS_AN_INPUT)]
    trained: tuple[Fingerprint, ...]
    held_out: tuple[Fingerprint, ...]
    contexts: tuple[Number, ...] | None = None

    @classmethod
    def collect(
        cls, labels: Labels, *, trained: Collection[Key], salt: str, contexts: Iterable[str] | None = None
    ) -> Self:
        """Return the fingerprints of a table.

        Args:
            labels: Its inputs with their labels.
            trained: Those of the inputs that decided what was learned.
            salt: The digest of the data.
            contexts: The contexts that rows are recognised by; None: by all of their texts.
        """
        span = NUMBERS_AN_INPUT * max(1, len(labels))
        # In a fixed order: of two inputs with one number the same is kept each time.
        drawn = {
            key: (_draw_number(salt, key, span), _draw_check(salt, key, labels[key]))
            for key in sorted(labels)
        }
        learned = dict(drawn[key] for key in drawn if key in trained)
        others = {number: check for number, check in drawn.values() if number not in learned}
        return cls(
            salt=salt,
            span=span,
            trained=tuple(sorted(learned.items())),
            held_out=tuple(sorted(others.items())),
            contexts=None
            if contexts is None
            else tuple(sorted({_draw_number(salt, ("", context), span) for context in contexts})),
        )

    @cached_property
    def checks(self) -> Mapping[int, int]:
        """The check of each number."""
        return dict((*self.held_out, *self.trained))

    def find_unseen(self, keys: Iterable[Key]) -> list[int]:
        """Return the places of the inputs that were certainly not trained on."""
        by_context = self.contexts is not None
        seen = set(self.contexts) if self.contexts is not None else {number for number, _ in self.trained}
        return [
            place
            for place, key in enumerate(keys)
            if _draw_number(self.salt, ("", key[1]) if by_context else key, self.span) not in seen
        ]

    def compare(self, labels: Labels) -> RowChanges:
        """Return how a table differs from the one that the fingerprints are of."""
        added = relabelled = 0
        found: set[int] = set()
        for key, own in labels.items():
            number = _draw_number(self.salt, key, self.span)
            if number not in self.checks:
                added += 1
                continue
            found.add(number)
            relabelled += self.checks[number] != _draw_check(self.salt, key, own)
        return RowChanges(added, len(self.checks) - len(found), relabelled)

    def serialize(self) -> bytes:
        """Return the bytes that are stored: the same rows give the same."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """The digest that an adapter's manifest names."""
        return digest_bytes(self.serialize())

    @classmethod
    def parse(cls, content: bytes, *, where: str) -> Self:
        """Read the bytes.

        Raises:
            AdapterRejectedError: They are something else.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))} {first['msg']}".strip()
            raise AdapterRejectedError(
                f"{_NAME} cannot be read: {reason}", where=where, todo=_TODO
            ) from error


def gather_labels(rows: Iterable[tuple[Key, JsonValue]]) -> Labels:
    """Return the distinct inputs of some rows, each with its distinct labels, sorted."""
    labels: dict[Key, set[JsonValue]] = {}
    for key, label in rows:
        labels.setdefault(key, set()).add(label)
    return {key: sorted(own, key=str) for key, own in labels.items()}


def store_fingerprints(store: Store, manifest: Manifest, content: bytes) -> None:
    """Put the row fingerprints of an adapter beside it; repeating it is harmless.

    Args:
        store: The store.
        manifest: The adapter's manifest, which names their digest.
        content: The serialised fingerprints.

    Raises:
        AdapterRejectedError: They are not those that the manifest names.
        StoreError: The store cannot be written.
    """
    digest = digest_bytes(content)
    if digest != manifest.inputs.fingerprints_digest:
        raise AdapterRejectedError(
            f"{_NAME} is not the one in its manifest", where=manifest.task, todo="train again"
        )
    store_sidecar(store, _find_key(manifest, digest), content)


def read_fingerprints(store: Store, manifest: Manifest) -> RowFingerprints | None:
    """Return the row fingerprints of an adapter; None: its manifest names none.

    Raises:
        AdapterRejectedError: They are missing or were changed.
        StoreError: The store cannot be read.
    """
    digest = manifest.inputs.fingerprints_digest
    if digest is None:
        return None
    key = _find_key(manifest, digest)
    content = read_sidecar(store, key, digest, name=_NAME, todo=_TODO)
    return RowFingerprints.parse(content, where=store.locate(key))


def _find_key(manifest: Manifest, digest: str) -> str:
    return sidecar_key(manifest.adapter_id, _FOLDER, digest)


def _draw_number(salt: str, key: Key, span: int) -> int:
    # Of 256 bits, the bias of what does not divide evenly is negligible.
    return int.from_bytes(hashlib.sha256(canonical_json([salt, *key])).digest()) % span


def _draw_check(salt: str, key: Key, labels: Sequence[JsonValue]) -> int:
    digest = hashlib.sha256(canonical_json([salt, "labels", list(labels), *key])).digest()
    return int.from_bytes(digest[:2])
