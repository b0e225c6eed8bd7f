"""The rows that a candidate answers better or worse than the champion did."""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from lorry_components.data.rows import IMAGE, Row
from lorry_components.task_types import Prediction, Target, TaskType

_SHOWN_ROWS = 5
_SHOWN_CHARACTERS = 300
# A row counts as changed above this difference, so that rounding is no change.
_LEAST_CHANGE = 1e-9


class ChangedRow(BaseModel):
    """A row that the candidate answers worse than the champion.

    Attributes:
        texts: Its inputs by name, cut where they are long.
        truth: The right answer.
        before: The champion's answer.
        now: The candidate's answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    texts: dict[str, str]
    truth: str
    before: str
    now: str


class RowChanges(BaseModel):
    """Two adapters compared row by row.

    Attributes:
        better: How many rows the candidate answers better than the champion.
        worse: How many it answers worse.
        rows: Of those that it answers worse, the ones that it lost most on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    better: int
    worse: int
    rows: tuple[ChangedRow, ...] = ()


def compare_rows(
    task_type: TaskType,
    rows: Sequence[Row],
    targets: Sequence[Target],
    *,
    before: Sequence[Prediction],
    now: Sequence[Prediction],
) -> RowChanges | None:
    """Return how single rows changed from one adapter to another; None: the task type scores no single rows.

    Args:
        task_type: The task's type.
        rows: The inputs.
        targets: What is right.
        before: The champion's predictions.
        now: The candidate's.
    """
    former, present = (task_type.score_rows(targets, each) for each in (before, now))
    if former is None or present is None:
        return None
    change = present - former
    order = np.argsort(change, kind="stable")[:_SHOWN_ROWS]
    places = [int(place) for place in order if change[place] < -_LEAST_CHANGE]
    return RowChanges(
        better=int((change > _LEAST_CHANGE).sum()),
        worse=int((change < -_LEAST_CHANGE).sum()),
        rows=tuple(
            ChangedRow(
                texts=_cut_texts(rows[place]),
                truth=_cut(_spell(task_type, targets[place])),
                before=_cut(task_type.describe_prediction(before[place])),
                now=_cut(task_type.describe_prediction(now[place])),
            )
            for place in places
        ),
    )


def _spell(task_type: TaskType, target: Target) -> str:
    labels = target if isinstance(target, tuple) else (target,)
    return " or ".join(task_type.spell_label(label) for label in labels)


def _cut_texts(row: Mapping[str, str]) -> dict[str, str]:
    return {name: _cut(text) for name, text in row.items() if name != IMAGE}


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN_CHARACTERS else f"{flat[: _SHOWN_CHARACTERS - 1]}…"
