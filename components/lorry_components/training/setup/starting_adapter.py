"""The champion's adapter as what a training begins with, if it fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorry_components.data.fingerprinting import find_unseen_rows
from lorry_components.data.rows import Row
from lorry_components.training.setup.model_setup import Setup
from lorry_components.training.setup.number_head import NumberHead
from lorry_registry.errors import AdapterRejectedError
from lorry_registry.manifest import Manifest
from lorry_registry.records.row_fingerprints import RowFingerprints
from lorry_registry.tasks.task_spec import TaskSpec

# The fields of a recipe's data that decide which rows are held out.
_DIVISION = ("split", "splits", "limit", "duplicates")
_FEW_ROWS = 3


@dataclass(frozen=True, slots=True)
class StartingAdapter:
    """A registered adapter that a training is to begin with.

    Attributes:
        version: Its version.
        adapter_id: What it is.
        folder: Its verified files.
        manifest: Its manifest.
        fingerprints: Of the rows that it was trained on; None: they are not known.
    """

    version: int
    adapter_id: str
    folder: Path
    manifest: Manifest
    fingerprints: RowFingerprints | None

    def find_misfit(
        self, spec: TaskSpec, setup: Setup, labels: Sequence[str] | None, held_out: Sequence[Row]
    ) -> str:
        """Return why it does not fit a training, before its tensors are looked at; "": it may.

        Args:
            spec: The task.
            setup: What was set up for the training.
            labels: The classes, or None.
            held_out: The rows by which the new adapter will be judged.
        """
        own = self.manifest
        pairs = (
            ("base", own.base.fingerprint, setup.base.identity.fingerprint),
            ("kind", own.kind, spec.kind),
            ("method", own.method, spec.method.name),
            ("labels", own.labels, None if labels is None else tuple(labels)),
            ("pooling", own.head, setup.task_type.find_recorded_pooling()),
        )
        others = [name for name, before, now in pairs if before != now]
        if others:
            return f"v{self.version} has another {' and '.join(others)}"
        return self._find_leak(spec, held_out)

    def _find_leak(self, spec: TaskSpec, held_out: Sequence[Row]) -> str:
        """Return why the new adapter would be judged by rows that this one has learned; "": it would not."""
        former, present = self.manifest.recipe.get("data"), spec.describe_recipe()["data"]
        assert isinstance(present, dict)
        if not isinstance(former, dict) or any(former.get(name) != present[name] for name in _DIVISION):
            return f"the data of v{self.version} were divided otherwise: it may have learned test rows"
        if self.fingerprints is None:
            return f"which rows v{self.version} was trained on is not known"
        known = len(held_out) - len(find_unseen_rows(self.fingerprints, held_out))
        # A few may be taken for such rows by chance.
        if known > _FEW_ROWS:
            return f"v{self.version} was trained on {known:,} of the present test rows"
        return ""


def begin_with(
    start: StartingAdapter,
    spec: TaskSpec,
    setup: Setup,
    labels: Sequence[str] | None,
    held_out: Sequence[Row],
) -> str:
    """Put an adapter into what was set up for a training; a head that learns numbers is still to be scaled.

    Args:
        start: The adapter.
        spec: The task.
        setup: What was set up for the training.
        labels: The classes, or None.
        held_out: The rows by which the new adapter will be judged.

    Returns:
        Why it does not fit, and nothing was changed; "": the training begins with it.
    """
    misfit = start.find_misfit(spec, setup, labels, held_out)
    if misfit:
        return misfit
    try:
        setup.method.continue_from(setup.model, start.folder, setup.newly_initialized)
    except AdapterRejectedError as error:
        return f"v{start.version} does not fit: {error.what}"
    return ""


def scale_head(head: NumberHead | None) -> None:
    """Let a head that came with an adapter answer in the units in which numbers are learned."""
    if head is not None:
        head.unfold()
