"""From an adapter folder to a model that is proven to be the one that was registered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lorry_components.inference.predictor import Predictor
from lorry_components.inference.recorded_outputs import find_tolerance, measure_distances
from lorry_components.methods import METHODS, AdaptedModel, Method
from lorry_components.models.bases import Base, resolve_base
from lorry_components.models.narrow_layer import narrow_last_layer
from lorry_components.task_types import TASK_TYPES, InputForm, TaskType
from lorry_registry.adapters.verification import verify_adapter
from lorry_registry.errors import AdapterRejectedError
from lorry_registry.manifest import Manifest
from lorry_registry.signing.adapter_signatures import SIDECAR_FOLDERS
from lorry_registry.tasks.input_specs import BaseSpec


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter on its base, ready to predict.

    Attributes:
        manifest: Its verified identity.
        task_type: The type of its task.
        predictor: Predicts with it.
    """

    manifest: Manifest
    task_type: TaskType
    predictor: Predictor


class Assemble(Protocol):
    """Puts an adapter on its base, as :func:`assemble_adapter` does."""

    def __call__(
        self, folder: Path, *, base: Base, task_type: TaskType, method: Method, labels: Sequence[str] | None
    ) -> Predictor:
        """Return the predictor of both."""
        ...


def assemble_adapter(
    folder: Path,
    *,
    base: Base,
    task_type: TaskType,
    method: Method,
    labels: Sequence[str] | None,
    load_reader: Callable[[TaskType, Path], Any] | None = None,
) -> Predictor:
    """Load a base, put an adapter on it, and return the predictor of both.

    Args:
        folder: The adapter's folder, which must be trusted or verified.
        base: The base that it was trained on.
        task_type: The type of its task.
        method: The method that it was trained with.
        labels: The classes in the order of the outputs, or None.
        load_reader: Loads what turns rows into inputs from the folder of the base; None: the task type does.

    Raises:
        AdapterRejectedError: The adapter does not fit the base.
    """
    adapted = restore_adapter(folder, base=base, task_type=task_type, method=method, labels=labels)
    reader = (
        task_type.load_reader(base.folder) if load_reader is None else load_reader(task_type, base.folder)
    )
    if task_type.reads_first_position(reader) and not method.adds_positions:
        narrow_last_layer(adapted.model)
    return Predictor(adapted=adapted, reader=reader, task_type=task_type, labels=labels)


def restore_adapter(
    folder: Path, *, base: Base, task_type: TaskType, method: Method, labels: Sequence[str] | None
) -> AdaptedModel:
    """Load a base and put an adapter on it, with all of the base's layers as they are.

    The arguments are those of :func:`assemble_adapter`.

    Raises:
        AdapterRejectedError: The adapter does not fit the base.
    """
    model, newly_initialized = task_type.load_model(base.folder, labels, **method.list_load_options())
    return method.restore(model, folder, newly_initialized)


def load_adapter(
    folder: Path,
    *,
    expected_id: str | None = None,
    base_model: str | None = None,
    beside: frozenset[str] = SIDECAR_FOLDERS,
    find_base: Callable[[BaseSpec], Base] = resolve_base,
    judge: Callable[[Manifest], None] | None = None,
    assemble: Assemble = assemble_adapter,
) -> LoadedAdapter:
    """Verify an adapter folder, find its base, load both, and compare the outputs with the registered ones.

    Args:
        folder: An adapter folder with its manifest.
        expected_id: The adapter id that the caller asked for.
        base_model: Where the base is, when it is not where the manifest says; its fingerprint must agree.
        beside: Names of what may lie beside the adapter's own files.
        find_base: Finds the base and its fingerprint; by default all of the base's files are hashed, as the
            adapter's always are.
        judge: Called with the manifest once the files are verified; it raises if the adapter is not to be
            loaded, such as one that no one trusted has signed. A registry's adapters were judged when they
            were fetched.
        assemble: Puts the adapter on its base.

    Raises:
        AdapterRejectedError: A byte was changed, the base is another one, or the outputs differ.
        BaseModelError: The base is not on this machine.
    """
    manifest = verify_adapter(folder, expected_id=expected_id, beside=beside)
    if judge is not None:
        judge(manifest)
    if manifest.kind not in TASK_TYPES or manifest.method not in METHODS:
        raise AdapterRejectedError(
            f"this version of lorry does not know task type {manifest.kind!r} "
            f"with method {manifest.method!r}",
            where=str(folder),
            todo="upgrade lorry",
        )
    task_type = _build_task_type(manifest, folder)
    base = _find_base(manifest, base_model, find_base)
    predictor = assemble(
        folder,
        base=base,
        task_type=task_type,
        # What a saved adapter needs is in its own configuration; the options only shape training.
        method=METHODS[manifest.method](None, task_type.peft_task_type),
        labels=manifest.labels,
    )
    _compare_probe(predictor, manifest, folder)
    return LoadedAdapter(manifest, task_type, predictor)


def _build_task_type(manifest: Manifest, folder: Path) -> TaskType:
    problem = ""
    try:
        form = InputForm.read(manifest.recipe)
        task_type = TASK_TYPES[manifest.kind](form).hold_pooling(manifest.head)
        if task_type.accepts_labels(manifest.labels):
            return task_type
        problem = "no labels"
    except ValueError as error:
        problem = str(error)
    raise AdapterRejectedError(
        f"its manifest has {problem} that a {manifest.kind} can use",
        where=str(folder),
        todo="pull the adapter again, or upgrade lorry",
    )


def _find_base(manifest: Manifest, base_model: str | None, find_base: Callable[[BaseSpec], Base]) -> Base:
    spec = BaseSpec(model=base_model or manifest.base.model, revision=manifest.base.revision)
    base = find_base(spec)
    if base.identity.fingerprint != manifest.base.fingerprint:
        raise AdapterRejectedError(
            f"it was trained on {manifest.base.model} with fingerprint {manifest.base.fingerprint}, "
            f"and this base has {base.identity.fingerprint}",
            where=spec.model,
            todo="install the base that the adapter was trained on",
        )
    return base


def _compare_probe(predictor: Predictor, manifest: Manifest, folder: Path) -> None:
    outputs = predictor.compute_outputs(manifest.probe.rows)
    widths = [outputs.shape[1]] * len(outputs)
    given = (manifest.probe.outputs, manifest.probe.base_outputs)
    if not widths or any([len(row) for row in rows] != widths for rows in given):
        raise AdapterRejectedError(
            "its probe is not one row of recorded outputs for each of some inputs",
            where=str(folder),
            todo="pull the adapter again",
        )
    recorded, base_outputs = map(np.asarray, given)
    tolerance = find_tolerance(recorded, base_outputs)
    if not tolerance > 0:
        raise AdapterRejectedError(
            "its probe records the outputs of the base, which show nothing about the adapter",
            where=str(folder),
            todo="do not use this adapter: none that lorry registers is like this",
        )
    distances = measure_distances(outputs, recorded)
    if not (distances <= tolerance).all():
        raise AdapterRejectedError(
            f"its outputs on the probe differ by {distances.max():.2g} from those recorded at registration; "
            f"{tolerance:.2g} may be rounding",
            where=str(folder),
            todo="these libraries may compute differently from those in its manifest: compare the versions",
        )
