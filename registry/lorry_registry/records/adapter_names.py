"""Short names for people: of a base, of a method with its size, of a training."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

# What tells one adapter of a method from another at a glance, in the order in which it is named.
_SIZES = ("r", "tokens", "layers", "size", "reduction", "drop")


def shorten_base(model: str) -> str:
    """Return the part of a base's address that distinguishes it, for a narrow column."""
    if model.startswith("bases:"):
        return model.removeprefix("bases:")
    if model.startswith("package:"):
        return model.removeprefix("package:").partition("/")[0]
    return PurePosixPath(model).name if model.startswith("/") else model


def label_method(recipe: Mapping[str, Any]) -> str:
    """Return the method of a recipe with the options that set its size: ``lora r=8``.

    Args:
        recipe: As ``TaskSpec.describe_recipe`` gives it, or as a manifest holds it.
    """
    method = recipe.get("method") or {}
    options = method.get("options") or {}
    sizes = [f"{name}={options[name]:g}" for name in _SIZES if _is_number(options.get(name))]
    kind = [str(options["type"])] if isinstance(options.get("type"), str) else []
    return " ".join([str(method.get("name", "")), *kind, *sizes]).strip()


def name_run(task: str, method: str, version: int | None = None) -> str:
    """Return the name of a training in MLflow: ``spam v4 lora r=8``; without a version before it has one.

    Args:
        task: The task.
        method: As :func:`label_method` returns it.
        version: The version in the ledger.
    """
    return " ".join(filter(None, (task, f"v{version}" if version else "", method)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
