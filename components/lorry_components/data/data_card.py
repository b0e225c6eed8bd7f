"""The data card: what a person and the later steps want to know of prepared data, in one small document."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorry_components.data.examples import Example
from lorry_components.data.rows import IMAGE, Label, LabelForm
from lorry_registry.errors import Fault, InvalidDataError, NotFoundError
from lorry_registry.files.atomic_write import write_whole
from lorry_registry.files.digests import canonical_json
from lorry_registry.tasks.input_specs import Columns

CARD_FILE = "data_card.json"

_DIGITS = 9
_MAX_CARD_BYTES = 16 << 20

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NumberSummary(_Document):
    """How the labels of a regression are distributed, in the label's unit."""

    min: float
    lower_quartile: float
    median: float
    mean: float
    upper_quartile: float
    max: float


class LengthSummary(_Document):
    """How long texts are, in words between white space; of a pair, both texts together."""

    min: Count
    median: float
    mean: float
    p95: float
    max: Count


class SplitCard(_Document):
    """One part.

    Attributes:
        rows: How many examples it has.
        labels: Class -> rows; or how the numbers are distributed; or how long the answers are.
        words: How long the texts are.
        digest: The digest of its examples, regardless of their order and the format of the file.
    """

    rows: Annotated[int, Field(ge=1)]
    labels: dict[str, Count] | NumberSummary | LengthSummary
    words: LengthSummary
    digest: Digest


class DataCard(_Document):
    """What the data of a task is.

    Attributes:
        version: The version of this document's form.
        task: The task's name.
        kind: The task type.
        source: The name of the file or folder; the whole address when it is not on a local disk.
        revision: The revision of a hub data set.
        source_digest: The digest of the source as it was before it was read.
        data_digest: The digest of the examples of all parts: equal ones mean equal tables, byte for byte,
            regardless of the format of the source and the order of its rows.
        columns: Which columns of the source hold what.
        labels: The classes, sorted; None for a regression.
        splits: The parts: train, validation, test.
        dropped: Reason -> rows left out for it.
        warnings: What to know before trusting a score, a sentence each.
    """

    version: Literal[1] = 1
    task: str
    kind: str
    source: str
    revision: str | None
    source_digest: Digest
    data_digest: Digest
    columns: Columns
    labels: tuple[str, ...] | None
    splits: dict[Literal["train", "validation", "test"], SplitCard]
    dropped: dict[str, Count]
    warnings: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write the card as canonical JSON: equal cards are equal files.

        Raises:
            OSError: The file cannot be written.
        """
        write_whole(path, canonical_json(self.model_dump(mode="json")))

    @classmethod
    def load(cls, path: Path) -> "DataCard":
        """Read a card.

        Raises:
            NotFoundError: There is none, so the preparation did not end.
            InvalidDataError: It is damaged; all faults are listed.
        """
        try:
            if path.stat().st_size > _MAX_CARD_BYTES:
                raise ValueError("it is too large")
            return cls.model_validate(json.loads(path.read_bytes()))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(
                "there is no data card, so the data is not prepared or only in part",
                where=str(path),
                todo="run prepare_data",
            ) from error
        except ValidationError as error:
            faults = [
                Fault(".".join(map(str, detail["loc"])) or "card", detail["msg"]) for detail in error.errors()
            ]
            raise InvalidDataError(str(path), faults, todo="run prepare_data again") from error
        except (OSError, ValueError, RecursionError) as error:
            fault = Fault("card", f"cannot be read, it is damaged: {error}")
            raise InvalidDataError(str(path), [fault], todo="run prepare_data again") from error


def describe_part(
    examples: Sequence[Example],
    digest: str,
    *,
    label_form: LabelForm,
    spell_label: Callable[[Label], str] = str,
) -> SplitCard:
    """Count what a part holds; it has at least one example."""
    labels = [example.label if label_form != "text" else spell_label(example.label) for example in examples]
    return SplitCard(
        rows=len(examples),
        labels=_summarise_labels(labels, label_form),
        words=_summarise_lengths([_join_texts(example.row) for example in examples]),
        digest=digest,
    )


def _join_texts(row: Mapping[str, str]) -> str:
    return " ".join(text for name, text in row.items() if name != IMAGE)


def list_labels(parts: Mapping[str, Sequence[Example]]) -> tuple[str, ...]:
    """Return the classes of all parts, sorted."""
    return tuple(sorted({str(example.label) for examples in parts.values() for example in examples}))


def _count_classes(labels: Sequence[Label]) -> dict[str, int]:
    return dict(sorted(Counter(map(str, labels)).items()))


def _summarise_numbers(labels: Sequence[Label]) -> NumberSummary:
    numbers = sorted(map(float, labels))
    lower, median, upper = _find_percentiles(numbers, (25, 50, 75))
    return NumberSummary(
        min=_round(numbers[0]),
        lower_quartile=lower,
        median=median,
        mean=_compute_mean(numbers),
        upper_quartile=upper,
        max=_round(numbers[-1]),
    )


def _summarise_labels(
    labels: Sequence[Label], form: LabelForm
) -> dict[str, int] | NumberSummary | LengthSummary:
    if form == "class":
        return _count_classes(labels)
    if form == "number":
        return _summarise_numbers(labels)
    return _summarise_lengths([str(label) for label in labels])


def _summarise_lengths(texts: Sequence[str]) -> LengthSummary:
    counts = sorted(len(text.split()) for text in texts)
    median, p95 = _find_percentiles(counts, (50, 95))
    return LengthSummary(min=counts[0], median=median, mean=_compute_mean(counts), p95=p95, max=counts[-1])


def _find_percentiles(ordered: Sequence[float], percents: Sequence[float]) -> list[float]:
    return [_round(float(value)) for value in np.percentile(np.asarray(ordered), percents)]


def _compute_mean(numbers: Sequence[float]) -> float:
    """Return the mean. Exactly rounded sums do not depend on the processor, as numpy's may."""
    return _round(math.fsum(numbers) / len(numbers))


def _round(number: float) -> float:
    """Return a number with its significant digits only, for people."""
    return float(f"{number:.{_DIGITS}g}")
