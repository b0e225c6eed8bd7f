"""The configuration of a base: for a base on a hub or on S3, ``config.json`` alone and never the weights."""

import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.models.bases import CONFIG_NAME, PIPELINE_INDEX, WEIGHTS_PATTERN, find_base_folder
from lorry_components.models.named_bases import read_named_document
from lorry_components.models.pooling import find_stated_pooling
from lorry_registry.adapters.verification import read_tensor_entries
from lorry_registry.errors import AdapterRejectedError, BaseModelError
from lorry_registry.manifest import Pooling
from lorry_registry.tasks.input_specs import BaseSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True)
class BaseConfiguration:
    """What is known of a base without its weights.

    Attributes:
        values: The content of ``config.json``.
        origin: Where it was read, in a few words.
        stored: The names of the base's tensors; None when its weights are not on this machine.
        pooling: How the base says that its states are pooled; None: it says nothing, or is not on this
            machine.
    """

    values: Mapping[str, Any]
    origin: str
    stored: frozenset[str] | None = None
    pooling: Pooling | None = None


def read_configuration(spec: BaseSpec, *, may_download: bool = True) -> BaseConfiguration:
    """Read the configuration of a base.

    A hub's comes from its cache on this machine, from ``known_bases.json``, or from the hub itself, at the
    pinned revision.

    Args:
        spec: The base.
        may_download: Whether a hub may be asked. S3 is asked for a base with a logical name in any case.

    Raises:
        BaseModelError: There is no such base, or its configuration cannot be read or downloaded.
        StoreError: S3 cannot be reached.
    """
    if spec.is_here:
        folder = find_base_folder(spec)
        values = _read_file(folder / CONFIG_NAME)
        return BaseConfiguration(values, str(folder), _list_stored(folder), find_stated_pooling(folder))
    if spec.is_named:
        return BaseConfiguration(read_named_document(spec, CONFIG_NAME), spec.model)
    cached = _find_cached(spec)
    if cached is not None:
        return BaseConfiguration(_read_file(cached), f"{spec.model}@{spec.revision}")
    known = read_known_configurations().get(spec.model)
    if known is not None:
        return BaseConfiguration(known, f"{spec.model}, as lorry knows it")
    if not may_download:
        raise BaseModelError("it is not on this machine", where=spec.model, todo="lorry plan downloads it")
    return BaseConfiguration(download_configuration(spec), f"{spec.model}@{spec.revision}")


def read_known_configurations() -> Mapping[str, Mapping[str, Any]]:
    """Return configurations of public models by hub id: what decides shapes, and no more."""
    resource = importlib.resources.files(__package__).joinpath("known_bases.json")
    known: dict[str, dict[str, Any]] = json.loads(resource.read_text("utf-8"))
    return known


def load_config(folder: Path) -> "PretrainedConfig":
    """Load the configuration of a base as transformers reads it.

    Raises:
        BaseModelError: transformers does not know the base's architecture.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    if (folder / PIPELINE_INDEX).is_file():
        raise BaseModelError(
            "it is a pipeline that draws images, and this is for models of text",
            where=str(folder),
            todo="name a model of texts; a pipeline is a base for kind image-generation",
        )
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise BaseModelError(
            " ".join(f"transformers cannot read its config.json: {error}".split()),
            where=str(folder),
            todo="restore the base, or choose one of an architecture that this version knows",
        ) from error
    return config


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"cannot be read: {error}", where=str(path), todo="name a folder that transformers saved"
        ) from error
    if not isinstance(values, dict):
        raise BaseModelError("is not a JSON object", where=str(path), todo="restore the base")
    return values


def _find_cached(spec: BaseSpec) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(spec.model, CONFIG_NAME, revision=spec.revision)
    return Path(cached) if isinstance(cached, str) else None


def download_configuration(spec: BaseSpec, name: str = CONFIG_NAME) -> dict[str, Any]:
    """Download one file of JSON of a base on a hub, unless it is on this machine already.

    Raises:
        BaseModelError: It cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return _read_file(Path(hf_hub_download(spec.model, name, revision=spec.revision)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BaseModelError(
            f"its {name} cannot be downloaded: {type(error).__name__}: {error}".splitlines()[0],
            where=f"{spec.model}@{spec.revision}",
            todo="check the id, the revision, the network and the hub token, or name a local folder",
        ) from error


def _list_stored(folder: Path) -> frozenset[str] | None:
    names: set[str] = set()
    try:
        for path in folder.glob(WEIGHTS_PATTERN):
            names.update(read_tensor_entries(path))
    except AdapterRejectedError:
        # A header above the adapters' limit: a plan does without the names.
        return None
    return frozenset(names) or None
