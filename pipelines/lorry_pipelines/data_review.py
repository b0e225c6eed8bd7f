"""A review of the data on this machine's disk, with all faults, before a run is started for them."""

from collections.abc import Iterable
from dataclasses import dataclass

from lorry_components.data.checked_source import read_checked
from lorry_components.data.sources.local import measure_source
from lorry_components.tasks.resolution import ResolvedTask
from lorry_registry.errors import LorryError


@dataclass(frozen=True, slots=True)
class DataReview:
    """What the data of a task are.

    Attributes:
        rows: Part -> rows.
        classes: How many classes they have; None: labels are no classes.
        warnings: What a person should know before trusting a score, a sentence each.
    """

    rows: dict[str, int]
    classes: int | None
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        parts = ", ".join(f"{count:,} {part}" for part, count in self.rows.items())
        return f"{parts} rows" if self.classes is None else f"{parts} rows in {self.classes:,} classes"


def review_data(
    tasks: Iterable[ResolvedTask], *, max_bytes: int | None = None
) -> tuple[dict[str, DataReview], dict[str, LorryError]]:
    """Read and check the data of tasks, as the first step of a run does; nothing is written.

    Data in S3 and on a hub are left out: reading them is a download.

    Args:
        tasks: The tasks.
        max_bytes: The size above which data are left out as well; None: there is none.

    Returns:
        By task, what its data are, and for those whose data cannot be used, why.
    """
    reviews: dict[str, DataReview] = {}
    problems: dict[str, LorryError] = {}
    for task in tasks:
        spec = task.spec
        if not spec.data.is_local or (max_bytes is not None and measure_source(spec.data) > max_bytes):
            continue
        try:
            checked = read_checked(spec.data, task.task_type)
        except LorryError as error:
            problems[spec.name] = error
            continue
        labels = {example.label for part in checked.parts.values() for example in part}
        reviews[spec.name] = DataReview(
            {part: len(examples) for part, examples in checked.parts.items()},
            len(labels) if task.task_type.data_form.has_classes else None,
            checked.warnings,
        )
    return reviews, problems
