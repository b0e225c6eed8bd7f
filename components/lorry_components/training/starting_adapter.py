"""The champion's adapter as what a training begins with, if it fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorry_components.training.number_head import NumberHead
from lorry_components.training.setup import Setup
from lorry_registry.errors import AdapterRejectedError
from lorry_registry.manifest import Manifest
from lorry_registry.task_spec import TaskSpec


@dataclass(frozen=True, slots=True)
class StartingAdapter:
    """A registered adapter that a training is to begin with.

    Attributes:
        version: Its version.
        adapter_id: What it is.
        folder: Its verified files.
        manifest: Its manifest.
    """

    version: int
    adapter_id: str
    folder: Path
    manifest: Manifest

    def find_misfit(self, spec: TaskSpec, setup: Setup, labels: Sequence[str] | None) -> str:
        """Return why it does not fit a training, as far as its manifest says; "": it does."""
        own = self.manifest
        pairs = (
            ("base", own.base.fingerprint, setup.base.identity.fingerprint),
            ("kind", own.kind, spec.kind),
            ("method", own.method, spec.method.name),
            ("labels", own.labels, None if labels is None else tuple(labels)),
            ("pooling", own.head, setup.task_type.find_recorded_pooling()),
        )
        others = [name for name, before, now in pairs if before != now]
        return f"v{self.version} has another {' and '.join(others)}" if others else ""


def begin_with(start: StartingAdapter, spec: TaskSpec, setup: Setup, labels: Sequence[str] | None) -> str:
    """Put an adapter into what was set up for a training; a head that learns numbers is still to be scaled.

    Returns:
        Why it does not fit, and nothing was changed; "": the training begins with it.
    """
    misfit = start.find_misfit(spec, setup, labels)
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
