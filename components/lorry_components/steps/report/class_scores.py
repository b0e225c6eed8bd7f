"""Precision and recall by class, read off a confusion matrix."""

from collections.abc import Iterator
from dataclasses import dataclass

from lorry_components.metrics.pictures import ConfusionPicture


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How well one class is predicted.

    Attributes:
        name: The class.
        rows: How many test rows are of it.
        precision: The share of its predictions that are right; None: it is never predicted.
        recall: The share of its rows that are found; None: it has none.
        f1: The harmonic mean of both; 0 where nothing of it is right.
    """

    name: str
    rows: int
    precision: float | None
    recall: float | None
    f1: float


def list_class_scores(picture: ConfusionPicture) -> Iterator[ClassScore]:
    """Yield the scores of each class; none where there are too many classes for a matrix."""
    for place, (name, counts) in enumerate(zip(picture.names, picture.counts, strict=False)):
        rows, right = sum(counts), counts[place]
        answers = sum(line[place] for line in picture.counts)
        yield ClassScore(
            name=name,
            rows=rows,
            precision=right / answers if answers else None,
            recall=right / rows if rows else None,
            f1=2.0 * right / (rows + answers) if rows + answers else 0.0,
        )
