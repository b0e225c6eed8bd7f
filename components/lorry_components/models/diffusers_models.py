"""Models of diffusers', and the folders that hold a pipeline of them: one folder for each part."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorry_registry.errors import BaseModelError, MissingExtraError


def load_diffusers_model(name: str, folder: Path) -> Any:
    """Load a model of diffusers' from a folder of safetensors.

    Raises:
        BaseModelError: It is damaged, or its weights are not all there.
        MissingExtraError: ``diffusers`` is not installed.
    """
    require_diffusers(str(folder))
    import diffusers
    from safetensors import SafetensorError

    try:
        model, loading = getattr(diffusers, name).from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise BaseModelError(
            f"cannot be loaded as {name}: {type(error).__name__}: {error}".splitlines()[0],
            where=str(folder),
            todo="restore the base, or name one whose configurations and weights belong together",
        ) from error
    if missing := sorted(loading["missing_keys"]):
        raise BaseModelError(
            f"its weights lack {len(missing)} parameters of {name}, among them {missing[0]}",
            where=str(folder),
            todo="restore the base",
        )
    return model


def build_diffusers_skeleton(name: str, config: Mapping[str, Any]) -> Any:
    """Build a model of diffusers' from its configuration, all shapes and no numbers."""
    import diffusers
    import torch

    with torch.device("meta"):
        return getattr(diffusers, name).from_config(dict(config))


def has_diffusers() -> bool:
    """Return whether diffusers is installed."""
    return importlib.util.find_spec("diffusers") is not None


def require_diffusers(where: str) -> None:
    """Refuse to go on without diffusers.

    Raises:
        MissingExtraError: It is not installed.
    """
    if not has_diffusers():
        raise MissingExtraError(
            "the 'diffusers' package is not installed",
            where=where,
            todo="install it with: pip install 'lorry[train,images]'",
        )


def read_part(folder: Path, part: str, name: str) -> dict[str, Any]:
    """Read the configuration of a part of a pipeline.

    Raises:
        BaseModelError: It is not there, or no configuration.
    """
    path = folder / part / name
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(f"cannot be read: {error}", where=str(path), todo="restore the base") from error
    if not isinstance(values, dict):
        raise BaseModelError("is not a JSON object", where=str(path), todo="restore the base")
    return values
