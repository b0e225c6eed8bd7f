"""Fingerprints of the rows of a task's data: taken by a training, compared with rows that are read later."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorry_components.data.checked_source import read_checked
from lorry_components.data.examples import Example
from lorry_components.data.layout import PARTS
from lorry_components.data.object_cache import ObjectCache
from lorry_components.data.prepared import order_examples
from lorry_components.data.rows import DataForm, LabelReader, Row
from lorry_registry.files.atomic_write import write_whole
from lorry_registry.files.digests import digest_document
from lorry_registry.records.row_fingerprints import Labels, RowFingerprints, gather_labels
from lorry_registry.tasks.input_specs import DataSpec

FINGERPRINTS_NAME = "row_fingerprints.json"
"""The file beside a candidate."""


def collect_fingerprints(
    parts: Mapping[str, Sequence[Example]], form: DataForm, *, trained: Collection[str], salt: str
) -> RowFingerprints:
    """Return the fingerprints of the rows of all parts.

    Where several rows ask about one context, rows are recognised by it: an adapter that was trained on one
    question about a context knows the context. With fewer than three contexts they are recognised by their
    questions, for then one context is in all parts.

    Args:
        parts: The prepared parts.
        form: How rows are divided.
        trained: The parts that decided what was learned.
        salt: The digest of the data.
    """
    keys = {example.key for name in trained for example in parts[name]}
    contexts = {context for _, context in keys}
    return RowFingerprints.collect(
        gather_part_labels(parts.values()),
        trained=keys,
        salt=salt,
        contexts=contexts if form.by_context and len(contexts) >= len(PARTS) else None,
    )


def save_fingerprints(fingerprints: RowFingerprints, folder: Path) -> None:
    """Write them beside a candidate."""
    write_whole(folder / FINGERPRINTS_NAME, fingerprints.serialize())


def find_unseen_rows(fingerprints: RowFingerprints, rows: Sequence[Row]) -> list[int]:
    """Return the places of the rows that were certainly not trained on."""
    return fingerprints.find_unseen(Example(dict(row), "").key for row in rows)


@dataclass(frozen=True, slots=True)
class PresentRows:
    """The rows of a source as a training would read them now.

    Attributes:
        data_digest: Of the rows of all parts, regardless of the form of the source.
        labels: Its inputs with their labels.
    """

    data_digest: str
    labels: Labels


def read_present_rows(
    data: DataSpec, reader: LabelReader, *, cache: ObjectCache | None = None
) -> PresentRows:
    """Read a source as a training would; nothing is written.

    Args:
        data: The task's data section.
        reader: What reads the labels: the task type.
        cache: Where images of a source in S3 are kept; None: they are downloaded each time.

    Raises:
        InvalidDataError: The source cannot be used; all of its faults are counted, the first listed.
        StoreError: A download cannot be kept.
        MissingExtraError: A hub data set is asked for and ``datasets`` is not installed.
    """
    parts = read_checked(data, reader, cache=cache).parts
    digests = {part: order_examples(examples)[1] for part, examples in parts.items()}
    return PresentRows(digest_document(digests), gather_part_labels(parts.values()))


def gather_part_labels(parts: Iterable[Sequence[Example]]) -> Labels:
    """Return the inputs of all parts with their labels."""
    return gather_labels((example.key, example.label) for examples in parts for example in examples)
