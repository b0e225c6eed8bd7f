"""Base and adapter in one folder of safetensors, which plain transformers loads."""

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lorry_components.export.folders import fill_folder
from lorry_components.export.merged_card import HEAD_FILE, render_merged_card
from lorry_components.inference.loading import LoadedAdapter, load_adapter, restore_adapter
from lorry_components.inference.predictor import Predictor
from lorry_components.inference.recorded_outputs import find_tolerance, measure_distances
from lorry_components.methods import METHODS, AdaptedModel, Method
from lorry_components.methods.native.own_weights import OwnWeightsMethod
from lorry_components.methods.peft.base import PeftMethod
from lorry_components.methods.soft_tokens.base import SoftTokenMethod
from lorry_components.models.bases import Base, list_base_files, resolve_base
from lorry_components.models.pooled_model import HEAD, is_pooled
from lorry_registry.adapters.verification import read_manifest
from lorry_registry.errors import AdapterRejectedError
from lorry_registry.manifest import Manifest
from lorry_registry.tasks.base_places import BasePlace
from lorry_registry.tasks.input_specs import BaseSpec


@dataclass(frozen=True, slots=True)
class MergedModel:
    """What was written.

    Attributes:
        folder: Where it is.
        difference: The largest difference between its outputs and those recorded at registration, as
            :func:`~lorry_components.inference.recorded_outputs.measure_distances` measures it.
        tolerance: What may be rounding.
        size_bytes: The size of all files.
    """

    folder: Path
    difference: float
    tolerance: float
    size_bytes: int


def merge_adapter(adapter: Path, target: Path, *, expected_id: str, place: BasePlace) -> MergedModel:
    """Write base and adapter as one model; the folder appears whole or not at all.

    The recorded inputs are run on what was written, loaded again from there.

    Args:
        adapter: The adapter's folder.
        target: The new folder; it must not exist.
        expected_id: The adapter's id.
        place: Where bases with a logical name are.

    Raises:
        AdapterRejectedError: The adapter is damaged, its method cannot be merged, or the merged model's
            outputs differ from the recorded ones.
        BaseModelError: The base is not on this machine.
        ConflictError: The folder exists.
        StoreError: The folder cannot be written.
    """
    _require_mergeable(read_manifest(adapter))

    def find_base(spec: BaseSpec) -> Base:
        return resolve_base(spec.find_in(place))

    loaded = load_adapter(adapter, expected_id=expected_id, find_base=find_base)
    identity = loaded.manifest.base
    base = find_base(BaseSpec(model=identity.model, revision=identity.revision))
    with fill_folder(target) as folder:
        _write(adapter, loaded, base, folder)
        return _compare(loaded, folder, target)


def _require_mergeable(manifest: Manifest) -> None:
    method = METHODS[manifest.method]
    if method.holds_four_bits:
        reason = "its base is held in four bits, whose rounding the merged weights would not have"
    elif issubclass(method, SoftTokenMethod):
        reason = "its soft tokens are inputs, and no change of weights"
    elif manifest.kind == "image-generation":
        reason = "it belongs to a pipeline of diffusers, and not to one model"
    elif not issubclass(method, OwnWeightsMethod | PeftMethod):
        reason = "it adds tokens or layers that the base does not have"
    else:
        return
    raise AdapterRejectedError(
        f"an adapter of method {manifest.method} cannot be merged: {reason}",
        where=manifest.task,
        todo="serve it with `lorry serve`, or copy it with `lorry pull`",
    )


def _write(adapter: Path, loaded: LoadedAdapter, base: Base, target: Path) -> None:
    from safetensors.torch import save_file

    manifest = loaded.manifest
    method = METHODS[manifest.method](None, loaded.task_type.peft_task_type)
    adapted = restore_adapter(
        adapter, base=base, task_type=loaded.task_type, method=method, labels=manifest.labels
    )
    model = _merge(adapted, method, manifest)
    if is_pooled(model):
        model.base_model.save_pretrained(target)
        head = getattr(model, HEAD).state_dict()
        save_file({name: tensor.contiguous() for name, tensor in head.items()}, target / HEAD_FILE)
    else:
        model.save_pretrained(target)
    _, names = list_base_files(base.folder)
    for name in names:
        if not (target / name).exists() and ".safetensors" not in name:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base.folder / name, target / name)
    (target / "README.md").write_text(render_merged_card(manifest), "utf-8")


def _merge(adapted: AdaptedModel, method: Method, manifest: Manifest) -> Any:
    model: Any = adapted.model
    if isinstance(method, OwnWeightsMethod):
        return model
    if not hasattr(model, "merge_and_unload"):
        raise AdapterRejectedError(
            f"PEFT cannot merge an adapter of its type {model.active_peft_config.peft_type.value}",
            where=manifest.task,
            todo="serve it with `lorry serve`, or copy it with `lorry pull`",
        )
    return model.merge_and_unload(safe_merge=True)


def _compare(loaded: LoadedAdapter, written: Path, target: Path) -> MergedModel:
    """Load what was written, and compare its outputs with the recorded ones."""
    manifest, task_type = loaded.manifest, loaded.task_type
    model = _load_written(loaded, written)
    adapted = AdaptedModel(model.eval(), contextlib.nullcontext)
    predictor = Predictor(adapted, task_type.load_reader(written), task_type, manifest.labels)
    recorded = np.asarray(manifest.probe.outputs)
    tolerance = find_tolerance(recorded, np.asarray(manifest.probe.base_outputs))
    difference = float(measure_distances(predictor.compute_outputs(manifest.probe.rows), recorded).max())
    if not difference <= tolerance:
        raise AdapterRejectedError(
            f"the merged model's outputs differ by {difference:.2g} from those recorded at registration; "
            f"{tolerance:.2g} may be rounding",
            where=manifest.task,
            todo="do not use the merged model; use the adapter on its base",
        )
    size = sum(path.stat().st_size for path in written.rglob("*") if path.is_file())
    return MergedModel(target, difference, tolerance, size)


def _load_written(loaded: LoadedAdapter, written: Path) -> Any:
    from safetensors.torch import load_file

    model, newly_initialized = loaded.task_type.load_model(written, loaded.manifest.labels)
    head = written / HEAD_FILE
    if head.exists():
        getattr(model, HEAD).load_state_dict(load_file(head))
    elif newly_initialized:
        raise AdapterRejectedError(
            f"the merged model lacks {', '.join(sorted(newly_initialized))}",
            where=loaded.manifest.task,
            todo="use the adapter on its base",
        )
    return model
