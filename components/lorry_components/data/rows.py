"""Rows of data, their labels, and what the reader of a source has to know of a task type."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

Record = tuple[int, dict[str, Any]]
"""A line or row number, counted from 1, and the cells by column."""

MAX_FILE_BYTES = 1 << 30
"""The size that a file may have once it is unpacked."""

MAX_LINE_BYTES = 1 << 20
"""The size that a line, and a text in it, may have."""

TOO_LARGE = ("is over 1 GiB once unpacked", "take a sample, or cut it into several files")
"""What is wrong with a larger file, and the remedy."""

Label = str | float
"""What a row of the data gives as the right answer: a class, a number, or a text."""

Row = Mapping[str, str]
"""The inputs of an example by field: ``text``, ``text_pair`` of a pair, ``image`` of an image."""

LabelForm = Literal["class", "number", "text"]
"""Labels are classes known from the data, numbers, or any text."""

IMAGE = "image"
"""The field of a row that holds an image: the bytes of its file, in base64."""


@dataclass(frozen=True, slots=True)
class DataForm:
    """How the rows of a task are checked and divided.

    Attributes:
        label_form: What labels are.
        by_context: Whether the second text is a context that several rows may ask about: rows that share one
            stay in one part when a table is divided.
    """

    label_form: LabelForm
    by_context: bool = False

    @property
    def has_classes(self) -> bool:
        """Whether labels are classes, which are known once the data is read."""
        return self.label_form == "class"


class LabelReader(Protocol):
    """What reads the labels of a source: a task type, as far as its data goes."""

    data_form: ClassVar[DataForm]
    named_file_endings: ClassVar[tuple[str, ...]]
    """The endings of the files that labels may name, in lower case; none: they name no files."""

    def parse_label(self, raw: object) -> Label:
        """Turn a cell of the label column into a label.

        Raises:
            ValueError: It is no such label; the message says why.
        """

    def find_fault(self, row: Row, label: Label) -> str:
        """Return what is wrong between an input and its label; empty: nothing."""

    def list_named_files(self, folder: Path) -> Sequence[str]:
        """Return the names of the files beside a table in a folder that labels may name, sorted."""

    def read_named_file(self, folder: Path, label: Label) -> Mapping[str, str]:
        """Return the fields that a row gets from the file in a folder that its label names, if it names one.

        Raises:
            ValueError: There is no such file, or it cannot be used; the message says why.
        """


MISSING_WORDS = frozenset({"NaN", "nan", "NAN", "<NA>", "null", "NULL"})
"""What pandas and databases write into a table of text where a value is missing."""


def is_missing(value: object) -> bool:
    """Return whether a cell holds nothing, in one of the ways in which tables say so."""
    if isinstance(value, str):
        return not value.strip() or value.strip() in MISSING_WORDS
    return value is None or value != value  # noqa: PLR0124 -- NaN


def join_prediction(row: Row, prediction: Mapping[str, Any]) -> dict[str, Any]:
    """Return an input and its prediction as one object; a predicted ``text`` becomes ``predicted_text``."""
    renamed = {f"predicted_{name}" if name in row else name: value for name, value in prediction.items()}
    return {**row, **renamed}
