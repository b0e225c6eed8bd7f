"""Marks of all rows of an adapter's data, in five bytes a row: so that a change is told in rows.

Each distinct input becomes a number, drawn by the SHA-256 of its text with a salt from 65,536 times as many
numbers as there are inputs, and two more bytes, drawn from the input together with its labels. Of rows that
are read later, one whose number is not there was added; a number that no row has any more was removed; and
where the number is there but the two bytes differ, the labels are others. An added row is taken for a known
one, and a changed label overlooked, with a probability of 1 in 65,536 each: of a hundred thousand rows, the
counts are wrong by one or two.

What somebody learns who reads it is what :mod:`~lorry_registry.trained_rows` says of its own list, and more
sharply: of texts that were not among the rows, one in 65,536 is said to be, and whoever guesses a text can
check a guess of its label. It lies beside that list, in the store, and does not leave it either.

The form: a line of JSON, the numbers as differences in LEB128, and the two bytes of each number, in order.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from lorry_registry.companions import companion_key, read_companion, store_companion
from lorry_registry.digests import canonical_json, digest_bytes
from lorry_registry.errors import AdapterRejectedError
from lorry_registry.manifest import Manifest
from lorry_registry.stores import Store
from lorry_registry.trained_rows import decode_numbers, encode_numbers

NUMBERS_AN_INPUT = 65_536
"""Of inputs that are new, at most one in so many is taken for one that was there."""

Labels = Mapping[tuple[str, ...], Sequence[JsonValue]]
"""The distinct inputs of a table, each with its distinct labels, sorted."""

_FORMAT = 1
_FOLDER = "row-marks"
_MAX_HEADER_BYTES = 1024
_CHECK_BYTES = 2
_TODO = "restore it from a backup; without it changes of the data are told by digests alone"


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
        told = [f"{count:,} {verb}" for verb, count in counts.items() if count]
        only = sum(counts.values())
        return (
            f"{' and '.join([', '.join(told[:-1]), told[-1]] if told[1:] else told)} "
            + ("row" if only == 1 else "rows")
            if told
            else ""
        )


@dataclass(frozen=True, slots=True)
class RowMarks:
    """The marks of a table.

    Attributes:
        salt: Goes into each number.
        span: From how many numbers they were drawn.
        checks: Number -> what its labels became.
    """

    salt: str
    span: int
    checks: Mapping[int, int]

    @classmethod
    def collect(cls, labels: Labels, *, salt: str) -> "RowMarks":
        """Return those of a table.

        Args:
            labels: Its inputs with their labels.
            salt: The digest of the data.
        """
        span = NUMBERS_AN_INPUT * max(1, len(labels))
        # In a fixed order: of two inputs with one number the same is kept each time.
        marks = dict(_draw(salt, key, labels[key], span) for key in sorted(labels))
        return cls(salt, span, dict(sorted(marks.items())))

    def compare(self, labels: Labels) -> RowChanges:
        """Return how a table differs from the marked one."""
        added = relabelled = 0
        seen: set[int] = set()
        for key in labels:
            number, check = _draw(self.salt, key, labels[key], self.span)
            if number not in self.checks:
                added += 1
                continue
            seen.add(number)
            relabelled += self.checks[number] != check
        return RowChanges(added, len(self.checks) - len(seen), relabelled)

    def serialize(self) -> bytes:
        """Return the bytes that are stored: the same rows give the same."""
        header = {"format": _FORMAT, "inputs": len(self.checks), "salt": self.salt, "span": self.span}
        checks = b"".join(check.to_bytes(_CHECK_BYTES) for check in self.checks.values())
        return canonical_json(header) + b"\n" + bytes(encode_numbers(tuple(self.checks))) + checks

    @classmethod
    def parse(cls, content: bytes, *, where: str) -> "RowMarks":
        """Read the bytes.

        Raises:
            AdapterRejectedError: They are not of the form above.
        """
        try:
            head, _, body = content.partition(b"\n")
            if len(head) > _MAX_HEADER_BYTES:
                raise ValueError("its first line is too long")
            header = json.loads(head)
            salt, span, inputs = header["salt"], header["span"], header["inputs"]
            if header["format"] != _FORMAT:
                raise ValueError("of a form that this version of lorry does not know")
            if not isinstance(salt, str) or type(span) is not int or type(inputs) is not int:
                raise ValueError("its first line is incomplete")
            if span < NUMBERS_AN_INPUT or not 0 <= inputs <= span or len(body) < inputs * _CHECK_BYTES:
                raise ValueError("its end is missing")
            salt.encode("utf-8")
            edge = len(body) - inputs * _CHECK_BYTES
            numbers = tuple(decode_numbers(body[:edge], span))
            if len(numbers) != inputs:
                raise ValueError("it has another length than it says")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise AdapterRejectedError(
                f"the marks of its rows cannot be read: {error}", where=where, todo=_TODO
            ) from error
        checks = (
            int.from_bytes(body[place : place + _CHECK_BYTES])
            for place in range(edge, len(body), _CHECK_BYTES)
        )
        return cls(salt, span, dict(zip(numbers, checks, strict=True)))


def gather_labels(rows: Iterable[tuple[tuple[str, ...], JsonValue]]) -> Labels:
    """Return the distinct inputs of some rows, each with its distinct labels, sorted."""
    labels: dict[tuple[str, ...], set[JsonValue]] = {}
    for key, label in rows:
        labels.setdefault(key, set()).add(label)
    return {key: sorted(own, key=str) for key, own in labels.items()}


def store_marks(store: Store, manifest: Manifest, content: bytes) -> None:
    """Put the marks of an adapter's rows beside it; repeating it is harmless.

    Args:
        store: The store.
        manifest: The adapter's manifest, which names the digest.
        content: The serialised marks.

    Raises:
        AdapterRejectedError: They are not those that the manifest names.
        StoreError: The store cannot be written.
    """
    digest = digest_bytes(content)
    if digest != manifest.inputs.marks_digest:
        raise AdapterRejectedError(
            "the marks of its rows are not those in its manifest", where=manifest.task, todo="train again"
        )
    store_companion(store, _find_key(manifest, digest), content)


def read_marks(store: Store, manifest: Manifest) -> RowMarks | None:
    """Return the marks of an adapter's rows; None: an older Lorry trained it, and kept none.

    Raises:
        AdapterRejectedError: They are missing or were changed.
        StoreError: The store cannot be read.
    """
    digest = manifest.inputs.marks_digest
    if digest is None:
        return None
    key = _find_key(manifest, digest)
    content = read_companion(store, key, digest, name="the marks of its rows", todo=_TODO, is_plural=True)
    return RowMarks.parse(content, where=store.locate(key))


def _find_key(manifest: Manifest, digest: str) -> str:
    return companion_key(manifest.adapter_id, _FOLDER, digest, ".bin")


def _draw(salt: str, key: Sequence[str], labels: Sequence[JsonValue], span: int) -> tuple[int, int]:
    # Of 256 bits, what does not divide evenly is nothing.
    number = int.from_bytes(hashlib.sha256(canonical_json([salt, *key])).digest()) % span
    check = hashlib.sha256(canonical_json([salt, "labels", list(labels), *key])).digest()
    return number, int.from_bytes(check[:_CHECK_BYTES])
