"""A row becomes an example, or a fault that names its line."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorry_components.data.faults import LISTED_FAULTS, FaultLog, quote, shorten
from lorry_components.data.layout import list_names, suggest_close
from lorry_components.data.records import describe_value, place_row
from lorry_components.data.rows import IMAGE, MAX_LINE_BYTES, Label, LabelReader, Record, is_missing
from lorry_registry.errors import Fault, InvalidValueError
from lorry_registry.files.digests import canonical_json
from lorry_registry.tasks.input_specs import Columns

Key = tuple[str, str]
"""What makes two examples the same input: the text and its pair, without white space around them."""

_MAX_CLASS_CHARACTERS = 256
_LISTED_COLUMNS = 200
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+")
# Training computes in 32-bit floats.
_MAX_NUMBER = 3.4e38


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a prepared part.

    Attributes:
        row: ``text``, ``text_pair`` when the task is about a pair, and ``image`` when it is about images.
        label: The class, or the number.
    """

    row: dict[str, str]
    label: Label

    @property
    def key(self) -> Key:
        """What makes two examples the same input: of images the image, for many have one prompt."""
        if IMAGE in self.row:
            return self.row[IMAGE], ""
        return self.row["text"].strip(), self.row.get("text_pair", "").strip()


def digest_example(example: Example) -> bytes:
    """Return the SHA-256 of an example, 32 bytes: equal examples, and no others, have equal ones."""
    fields = [example.row["text"], example.row.get("text_pair"), example.label]
    if IMAGE in example.row:
        fields.append(example.row[IMAGE])
    return hashlib.sha256(canonical_json(fields)).digest()


def list_columns(columns: Columns) -> dict[str, str]:
    """Return field of a prepared row -> column of the source."""
    pair = {} if columns.text_pair is None else {"text_pair": columns.text_pair}
    return {"text": columns.text, **pair, "label": columns.label}


def collect_examples(
    records: Iterable[Record],
    name: str,
    columns: Columns,
    reader: LabelReader,
    log: FaultLog,
    *,
    folder: Path | None = None,
    decimal: str = ".",
    dropped: Counter[str] | None = None,
) -> list[Example]:
    """Turn the rows of one file into examples; what is wrong goes to the log.

    Args:
        records: The rows.
        name: What faults call the file.
        columns: Which columns hold what.
        reader: What reads the labels: the task type.
        log: Where faults go.
        folder: The folder of the file; None: it is on no disk, and there are no files beside it.
        decimal: What stands before the decimal places of numbers that are texts.
        dropped: Counts the rows that are left out because they lack a text or a label, by reason; None: such
            rows are faults.
    """
    fields = list_columns(columns)
    gaps = Gaps(fields)
    has_numbers = reader.data_form.label_form == "number"
    commas: list[tuple[int, str]] = []
    examples: list[Example] = []
    for number, values in records:
        lacks_column = gaps.note(number, values)
        if dropped is not None and (reason := _find_missing(values, fields)):
            dropped[reason] += 1
            continue
        if lacks_column:
            continue
        place = place_row(name, number)
        faults = [Fault(place, what) for what in _find_text_faults(values, fields)]
        label: Label = ""
        raw = values[columns.label]
        if has_numbers and isinstance(raw, str) and _DECIMAL_COMMA.fullmatch(raw.strip()):
            if decimal == ".":
                commas.append((number, raw.strip()))
                continue
            raw = raw.replace(".", "").replace(",", ".")
        try:
            label = _parse_label(raw, reader)
        except (ValueError, OverflowError) as error:
            faults.append(_describe_label_error(error, place, columns))
        row = {field: str(values[column]) for field, column in fields.items() if field != "label"}
        if not faults and folder is not None:
            try:
                row |= reader.read_named_file(folder, label)
            except ValueError as error:
                faults.append(_describe_label_error(error, place, columns))
        if not faults and (what := reader.find_fault(row, label)):
            faults.append(Fault(place, what))
        for fault in faults:
            log.add(fault.where, fault.what, fault.remedy)
        if not faults:
            examples.append(Example(row, label))
    gaps.report(name, log, of_rows=dropped is None)
    if commas:
        number, raw = commas[0]
        log.add_file(
            name,
            f"has decimal commas in the column {shorten(columns.label)!r}, in {len(commas):,} rows from "
            f"{place_row(name, number)} on: {quote(raw)}",
            "give data.format: {decimal: ','} in the task file, or write points",
        )
    return examples


def _find_missing(values: dict[str, object], fields: dict[str, str]) -> str:
    """Return why a row is left out; empty: it has its texts and its label."""
    missing = {field for field, column in fields.items() if is_missing(values.get(column))}
    if missing - {"label"}:
        return "rows without a text"
    return "rows without a label" if missing else ""


def _describe_label_error(error: ValueError | OverflowError, place: str, columns: Columns) -> Fault:
    what, remedy = (error.what, error.remedy) if isinstance(error, InvalidValueError) else (str(error), "")
    return Fault(place, f"column {shorten(columns.label)!r}: {shorten(what, 120)}", remedy)


def _find_text_faults(values: dict[str, object], fields: dict[str, str]) -> Iterator[str]:
    for field, column in fields.items():
        if field != "label" and (fault := find_text_fault(values[column])):
            yield f"column {shorten(column)!r} {fault}"


def find_text_fault(value: object) -> str:
    """Return why a cell is no text that a base can read; empty: it is one."""
    if not isinstance(value, str):
        return f"is {describe_value(value)}, not a string"
    if not value.strip():
        return "is empty"
    if len(value) > MAX_LINE_BYTES:
        return "is over 1 MiB long"
    if "\0" in value:
        return f"holds a NUL character: {quote(value)}"
    return "" if _is_encodable(value) else f"holds half of a surrogate pair: {quote(value)}"


def _is_encodable(text: str) -> bool:
    """Whether a text has a form in UTF-8; JSON can escape halves of surrogate pairs, which have none."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _parse_label(raw: object, reader: LabelReader) -> Label:
    label = reader.parse_label(raw)
    if isinstance(label, str):
        if reader.data_form.label_form == "text":
            if fault := find_text_fault(label):
                raise ValueError(fault)
        elif len(label) > _MAX_CLASS_CHARACTERS:
            raise ValueError(
                f"{quote(label)} has {len(label)} characters; a class name may have {_MAX_CLASS_CHARACTERS}"
            )
        elif fault := find_text_fault(label):
            raise ValueError(fault)
    elif abs(label) > _MAX_NUMBER:
        raise ValueError(f"{label!r} is too large for a 32-bit float")
    return label


class Gaps:
    """Columns that rows lack: a fault of the file when no row has one, and of each row otherwise.

    Args:
        fields: Field of a row -> its column.
    """

    def __init__(self, fields: dict[str, str]) -> None:
        self._fields = fields
        self._wanted: Sequence[str] = tuple(dict.fromkeys(fields.values()))
        self._seen: set[str] = set()
        self._others: set[str] = set()
        self._first: dict[str, list[int]] = {column: [] for column in self._wanted}
        self._counts = dict.fromkeys(self._wanted, 0)

    def note(self, number: int, values: dict[str, object]) -> bool:
        """Note what a row has and lacks; return whether it lacks something."""
        missing = [column for column in self._wanted if column not in values]
        self._seen.update(column for column in self._wanted if column in values)
        if not missing:
            return False
        if len(self._others) < _LISTED_COLUMNS:
            self._others.update(values)
        for column in missing:
            self._counts[column] += 1
            if len(self._first[column]) < LISTED_FAULTS:
                self._first[column].append(number)
        return True

    def report(self, name: str, log: FaultLog, *, of_rows: bool = True) -> None:
        """Add what is missing to the log, once the whole file was read; of single rows if it is wanted."""
        for field, column in self._fields.items():
            shown = shorten(column)
            if not self._counts[column]:
                continue
            if column not in self._seen:
                log.add_file(
                    name,
                    f"has no column {shown!r} (data.columns.{field}); it has {list_names(self._others)}",
                    suggest_close(column, self._others),
                )
                continue
            if not of_rows:
                continue
            for number in self._first[column]:
                log.add(place_row(name, number), f"has no {shown!r}")
            log.count_more(self._counts[column] - len(self._first[column]))
