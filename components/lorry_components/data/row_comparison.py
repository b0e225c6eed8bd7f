"""The rows of a task's data, marked for later, and read again to be compared with such marks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorry_components.data.checked_source import read_checked
from lorry_components.data.examples import Example
from lorry_components.data.object_cache import ObjectCache
from lorry_components.data.prepared import order_examples
from lorry_components.data.rows import LabelReader
from lorry_registry.digests import digest_document
from lorry_registry.input_specs import DataSpec
from lorry_registry.row_marks import Labels, RowMarks, gather_labels
from lorry_registry.whole_files import write_whole

MARKS_NAME = "row_marks.bin"
"""The file beside a candidate."""


def collect_marks(parts: Mapping[str, Sequence[Example]], *, salt: str) -> RowMarks:
    """Return the marks of the rows of all parts.

    Args:
        parts: The prepared parts.
        salt: The digest of the data.
    """
    return RowMarks.collect(gather_part_labels(parts.values()), salt=salt)


def save_marks(marks: RowMarks, folder: Path) -> None:
    """Write them beside a candidate."""
    write_whole(folder / MARKS_NAME, marks.serialize())


@dataclass(frozen=True, slots=True)
class PresentRows:
    """The rows of a source as a training would read them now.

    Attributes:
        data_digest: Of the rows of all parts, whatever the form of the source.
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
