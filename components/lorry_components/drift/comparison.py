"""New inputs beside the rows that a task was learned from, in what their texts are like."""

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lorry_components.data.rows import IMAGE, Label, LabelForm, Row
from lorry_components.drift.permutation import (
    compute_frequency_shift,
    compute_mmd,
    compute_order_shift,
    compute_p,
    divide_at_random,
)

Embed = Callable[[Sequence[Row]], NDArray[np.floating]]
"""Returns what the frozen base makes of rows, shape (rows, width)."""

_WORD = re.compile(r"\w+")
_BUCKETS = 2048
_SHOWN_WORDS = 5
_LEAST_PERMUTATIONS, _MOST_PERMUTATIONS = 999, 20_000
# How many divisions there should be above the level that the smallest p-value is compared with.
_EXPECTED = 10


class ShiftTest(BaseModel):
    """One test.

    Attributes:
        name: What is compared: ``length``, ``vocabulary``, ``labels``, ``embedding``.
        statistic: How far apart both are; what the number means depends on the test.
        p_value: The share of divisions at random that are as far apart.
        before: What the rows of the task are like, for people.
        now: What the new inputs are like.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    statistic: float
    p_value: float
    before: str = ""
    now: str = ""


class DriftReport(BaseModel):
    """New inputs beside the rows of a task.

    Attributes:
        rows_before: How many rows of the task are compared.
        rows_now: How many of the new inputs.
        confidence: How sure a shift must be to count.
        level: What the smallest p-value must not exceed: the confidence's, divided by the number of tests.
        tests: The tests.
        left_out: What was not compared, and why.
        has_drifted: Whether some test is sure of a shift.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows_before: int
    rows_now: int
    confidence: float
    level: float
    tests: tuple[ShiftTest, ...]
    left_out: dict[str, str] = {}
    has_drifted: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows, and their labels where all are known."""

    rows: Sequence[Row]
    labels: Sequence[Label] = ()

    def draw(self, most: int, *, seed: int) -> "Sample":
        """Return at most some number of its rows, drawn by a seed, in their order."""
        if len(self.rows) <= most:
            return self
        chosen = sorted(np.random.default_rng(seed).choice(len(self.rows), size=most, replace=False))
        return Sample(
            [self.rows[place] for place in chosen],
            [self.labels[place] for place in chosen] if self.labels else (),
        )


def compare_inputs(
    before: Sample,
    now: Sample,
    *,
    label_form: LabelForm,
    confidence: float,
    embed: Embed | None,
    most_rows: int = 500,
    seed: int = 0,
) -> DriftReport:
    """Compare new inputs with the rows of a task: lengths, words, labels, and what the base makes of them.

    If both are of one kind, a shift is reported in at most a share ``1 - confidence`` of all cases.

    Args:
        before: Rows that the task is learned from.
        now: New inputs.
        label_form: What labels are.
        confidence: How sure a shift must be.
        embed: What the frozen base makes of rows; None: that is not compared.
        most_rows: How many rows of each are compared at most.
        seed: Of which rows are drawn, and of the divisions.
    """
    before, now = before.draw(most_rows, seed=seed), now.draw(most_rows, seed=seed + 1)
    tests = _choose_tests(before, now, label_form, embed)
    level = (1.0 - confidence) / len(tests)
    divisions = divide_at_random(
        len(before.rows),
        len(now.rows),
        permutations=min(_MOST_PERMUTATIONS, max(_LEAST_PERMUTATIONS, round(_EXPECTED / level))),
        seed=seed,
    )
    found = tuple(run(divisions) for run in tests.values())
    left_out = {}
    if "labels" not in tests:
        left_out["labels"] = "not every new input has one" if label_form != "text" else "answers are texts"
    if embed is None:
        left_out["embedding"] = "the task's type, or its base, has no vector for a whole text"
    return DriftReport(
        rows_before=len(before.rows),
        rows_now=len(now.rows),
        confidence=confidence,
        level=level,
        tests=found,
        left_out=left_out,
        has_drifted=any(test.p_value <= level for test in found),
    )


_Run = Callable[[NDArray[np.bool_]], ShiftTest]


def _choose_tests(
    before: Sample, now: Sample, label_form: LabelForm, embed: Embed | None
) -> Mapping[str, _Run]:
    tests: dict[str, _Run] = {
        "length": lambda divisions: _test_lengths(before, now, divisions),
        "vocabulary": lambda divisions: _test_words(before, now, divisions),
    }
    if before.labels and now.labels and label_form != "text":
        tests["labels"] = lambda divisions: _test_labels(before, now, label_form, divisions)
    if embed is not None:
        features = embed([*before.rows, *now.rows]).astype(np.float64)
        tests["embedding"] = lambda divisions: _conclude("embedding", compute_mmd(features, divisions))
    return tests


def _test_lengths(before: Sample, now: Sample, divisions: NDArray[np.bool_]) -> ShiftTest:
    first, second = ([float(len(words)) for words in map(_list_words, each.rows)] for each in (before, now))
    return _conclude(
        "length",
        compute_order_shift(np.asarray([*first, *second]), divisions),
        f"median {np.median(first):.0f} words",
        f"median {np.median(second):.0f} words",
    )


def _test_words(before: Sample, now: Sample, divisions: NDArray[np.bool_]) -> ShiftTest:
    presence = np.zeros((divisions.shape[1], _BUCKETS))
    for place, row in enumerate([*before.rows, *now.rows]):
        for word in set(_list_words(row)):
            # Not Python's hash, which differs from process to process.
            presence[place, zlib.crc32(word.encode()) % _BUCKETS] = 1.0
    shown = dict(_describe_words(before, now))
    return _conclude(
        "vocabulary",
        compute_frequency_shift(presence[:, presence.sum(axis=0) > 1], divisions),
        ", ".join(f"{word} {shares[0]:.0%}" for word, shares in shown.items()),
        ", ".join(f"{word} {shares[1]:.0%}" for word, shares in shown.items()),
    )


def _describe_words(before: Sample, now: Sample) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield the words whose share of rows changed most, with both shares."""
    counted = [Counter(word for row in each.rows for word in set(_list_words(row))) for each in (before, now)]
    sizes = (len(before.rows), len(now.rows))

    def find_shares(word: str) -> tuple[float, float]:
        return counted[0][word] / sizes[0], counted[1][word] / sizes[1]

    words = sorted({*counted[0], *counted[1]})
    words.sort(key=lambda word: -abs(find_shares(word)[0] - find_shares(word)[1]))
    for word in words[:_SHOWN_WORDS]:
        yield word, find_shares(word)


def _test_labels(
    before: Sample, now: Sample, label_form: LabelForm, divisions: NDArray[np.bool_]
) -> ShiftTest:
    if label_form == "number":
        first, second = ([float(label) for label in each.labels] for each in (before, now))
        return _conclude(
            "labels",
            compute_order_shift(np.asarray([*first, *second]), divisions),
            f"median {np.median(first):.3g}",
            f"median {np.median(second):.3g}",
        )
    names = sorted({str(label) for label in (*before.labels, *now.labels)})
    places = {name: place for place, name in enumerate(names)}
    presence = np.zeros((divisions.shape[1], len(names)))
    for row, label in enumerate([*before.labels, *now.labels]):
        presence[row, places[str(label)]] = 1.0
    shares = [Counter(map(str, each.labels)) for each in (before, now)]
    moved = sorted(names, key=lambda name: -abs(shares[0][name] - shares[1][name]))[:_SHOWN_WORDS]
    return _conclude(
        "labels",
        compute_frequency_shift(presence, divisions),
        *(
            ", ".join(f"{name} {counts[name] / len(each.labels):.0%}" for name in moved)
            for each, counts in zip((before, now), shares, strict=True)
        ),
    )


def _conclude(name: str, values: NDArray[np.float64], before: str = "", now: str = "") -> ShiftTest:
    return ShiftTest(name=name, statistic=float(values[0]), p_value=compute_p(values), before=before, now=now)


def _list_words(row: Row) -> list[str]:
    text = " ".join(text for name, text in row.items() if name != IMAGE)
    return [word.casefold() for word in _WORD.findall(text)]
