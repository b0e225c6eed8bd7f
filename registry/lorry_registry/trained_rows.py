"""Which rows an adapter was trained on, in two bytes a row: so that it is never judged by one of them.

Each training row becomes a number, drawn by the SHA-256 of its text with a salt, from 1024 times as many
numbers as there are rows; what is kept is the sorted list of them, as differences. A row that was trained on
is always recognised. One that was not is taken for such a row with a probability of at most 1 in 1024: it is
left out of a comparison by chance, whoever would have won on it, and costs a thousandth of the rows.

That is also all that somebody learns who reads it. No text can be read from a number. Whoever guesses a text
can ask whether it was among the rows, and of texts that were not, one in 1024 is said to be: a list of a
billion possible texts becomes a million, not the rows. The salt is the digest of the data, so that what was
trained on other data cannot be compared. It lies in the store beside the adapter, and does not leave it with
an adapter that is pulled, exported or shown in MLflow.

The form: a line of JSON, then the differences in LEB128, seven bits a byte, the lowest first.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lorry_registry.companions import companion_key, read_companion, store_companion
from lorry_registry.digests import canonical_json, digest_bytes
from lorry_registry.errors import AdapterRejectedError
from lorry_registry.manifest import Manifest
from lorry_registry.stores import Store

Unit = Literal["row", "context"]

NUMBERS_A_ROW = 1024
"""Of rows that were not trained on, at most one in so many is taken for one that was."""

_FORMAT = 1
_FOLDER = "trained-rows"
_MAX_HEADER_BYTES = 1024
_TODO = "restore it from a backup, or train the adapter again"


@dataclass(frozen=True, slots=True)
class TrainedRows:
    """The rows that an adapter was trained on.

    Attributes:
        unit: What of a row is recognised: ``row``, its texts, or ``context``, its second text alone.
        salt: Goes into each number.
        span: From how many numbers they were drawn.
        numbers: The numbers, sorted, none twice.
    """

    unit: Unit
    salt: str
    span: int
    numbers: tuple[int, ...]

    @classmethod
    def collect(cls, keys: Iterable[Sequence[str]], *, unit: Unit, salt: str) -> "TrainedRows":
        """Return those of some training rows.

        Args:
            keys: The texts of each row, or of its context.
            unit: Which of the two.
            salt: The digest of the data.
        """
        distinct = {tuple(key) for key in keys}
        span = NUMBERS_A_ROW * max(1, len(distinct))
        return cls(unit, salt, span, tuple(sorted({_draw(salt, key, span) for key in distinct})))

    def find_unseen(self, keys: Iterable[Sequence[str]]) -> list[int]:
        """Return the places of the rows that were surely not trained on.

        Args:
            keys: The texts of each row, or of its context, as :attr:`unit` says.
        """
        seen = set(self.numbers)
        return [place for place, key in enumerate(keys) if _draw(self.salt, key, self.span) not in seen]

    def serialize(self) -> bytes:
        """Return the bytes that are stored: the same rows give the same."""
        header = {"format": _FORMAT, "salt": self.salt, "span": self.span, "unit": self.unit}
        return canonical_json(header) + b"\n" + bytes(encode_numbers(self.numbers))

    @classmethod
    def parse(cls, content: bytes, *, where: str) -> "TrainedRows":
        """Read the bytes.

        Raises:
            AdapterRejectedError: They are not of the form above.
        """
        try:
            head, _, body = content.partition(b"\n")
            if len(head) > _MAX_HEADER_BYTES:
                raise ValueError("its first line is too long")
            header = json.loads(head)
            unit, salt, span = header["unit"], header["salt"], header["span"]
            if header["format"] != _FORMAT or unit not in ("row", "context"):
                raise ValueError("of a form that this version of lorry does not know")
            if not isinstance(salt, str) or type(span) is not int or span < NUMBERS_A_ROW:
                raise ValueError("its first line is incomplete")
            # Half a surrogate pair has no bytes, and no row would have a number.
            salt.encode("utf-8")
            numbers = tuple(decode_numbers(body, span))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise AdapterRejectedError(
                f"the list of its training rows cannot be read: {error}", where=where, todo=_TODO
            ) from error
        return cls(unit, salt, span, numbers)


def digest_rows(rows: TrainedRows) -> str:
    """Return the digest that an adapter's manifest names."""
    return digest_bytes(rows.serialize())


def store_rows(store: Store, manifest: Manifest, content: bytes) -> None:
    """Put the training rows of an adapter beside it; repeating it is harmless.

    Args:
        store: The store.
        manifest: The adapter's manifest, which names the digest.
        content: The serialised rows.

    Raises:
        AdapterRejectedError: They are not those that the manifest names.
        StoreError: The store cannot be written.
    """
    digest = digest_bytes(content)
    if digest != manifest.inputs.rows_digest:
        raise AdapterRejectedError(
            "the list of its training rows is not the one in its manifest",
            where=manifest.task,
            todo="train again",
        )
    store_companion(store, _find_key(manifest, digest), content)


def read_rows(store: Store, manifest: Manifest) -> TrainedRows | None:
    """Return the training rows of an adapter; None: an older Lorry trained it, and kept none.

    Raises:
        AdapterRejectedError: They are missing or were changed.
        StoreError: The store cannot be read.
    """
    digest = manifest.inputs.rows_digest
    if digest is None:
        return None
    key = _find_key(manifest, digest)
    content = read_companion(store, key, digest, name="the list of its training rows", todo=_TODO)
    return TrainedRows.parse(content, where=store.locate(key))


def _find_key(manifest: Manifest, digest: str) -> str:
    return companion_key(manifest.adapter_id, _FOLDER, digest, ".bin")


def _draw(salt: str, key: Sequence[str], span: int) -> int:
    # Of 256 bits, what does not divide evenly is nothing.
    return int.from_bytes(hashlib.sha256(canonical_json([salt, *key])).digest()) % span


def encode_numbers(numbers: Sequence[int]) -> Iterator[int]:
    """Yield the bytes of sorted numbers, none of which comes twice: their differences in LEB128."""
    before = -1
    for number in numbers:
        step, before = number - before - 1, number
        while step >= 0x80:
            yield step & 0x7F | 0x80
            step >>= 7
        yield step


def decode_numbers(body: bytes, span: int) -> Iterator[int]:
    """Yield the numbers that :func:`encode_numbers` wrote.

    Args:
        body: The bytes.
        span: What each number is below.

    Raises:
        ValueError: The bytes are something else.
    """
    number, step, shift = -1, 0, 0
    for byte in body:
        step |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            number += step + 1
            if number >= span:
                raise ValueError("a number is too large")
            yield number
            step = shift = 0
        elif shift > 63:
            raise ValueError("a number is too long")
    if shift:
        raise ValueError("its end is missing")
