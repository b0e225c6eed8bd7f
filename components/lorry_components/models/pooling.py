"""The pooling of a base, read from the files that sentence-transformers writes beside it.

These files decide nothing that a base computes, so its fingerprint does not cover them. What was read is
recorded with each adapter that depends on it.
"""

import json
from pathlib import Path
from typing import Any, Literal

from lorry_registry.errors import BaseModelError
from lorry_registry.manifest import Pooling

MODULES_NAME = "modules.json"
"""What sentence-transformers lists its modules in."""
POOLING_CONFIGS = "*_Pooling/config.json"
"""Where it keeps how states are pooled."""

Place = Literal["first", "mean", "last"]
_TODO = "restore it, or write head.pooling: mean"
_PLACES: dict[str, Place] = {
    "pooling_mode_cls_token": "first",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
# Later versions write one name and not a flag for each.
_NAMES: dict[str, Place] = {"cls": "first", "mean": "mean", "lasttoken": "last"}


def read_pooling(folder: Path) -> Pooling | None:
    """Return how sentence-transformers pools a base's states; None: the base says nothing of it.

    Raises:
        BaseModelError: Its files are damaged, or pool in a way that Lorry does not know.
    """
    path = folder / MODULES_NAME
    if not path.is_file():
        return None
    modules = _read_json(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise BaseModelError("is no list of modules", where=str(path), todo=_TODO)
    types = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if "Pooling" not in types:
        return None
    number = types.index("Pooling")
    config = folder / str(modules[number].get("path", "")) / "config.json"
    if not config.resolve().is_relative_to(folder.resolve()):
        raise BaseModelError("names a folder outside of the base", where=str(path), todo=_TODO)
    return Pooling(place=_find_place(config), normalizes=types[number + 1 : number + 2] == ["Normalize"])


def find_stated_pooling(folder: Path) -> Pooling | None:
    """Return how a base says that its states are pooled; None: it does not, or in a way that is not known."""
    try:
        return read_pooling(folder)
    except BaseModelError:
        return None


def list_pooling_files(folder: Path) -> list[str]:
    """Return the names of the files that :func:`read_pooling` reads in a base's folder, sorted."""
    if not (folder / MODULES_NAME).is_file():
        return []
    return [MODULES_NAME, *sorted(str(path.relative_to(folder)) for path in folder.glob(POOLING_CONFIGS))]


def _find_place(path: Path) -> Place:
    config = _read_json(path)
    if not isinstance(config, dict):
        raise BaseModelError("is not a JSON object", where=str(path), todo=_TODO)
    name = config.get("pooling_mode")
    # Several ways may be on at once: their vectors are joined then.
    wanted = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    place = (
        _NAMES.get(name) if isinstance(name, str) else _PLACES.get(wanted[0]) if len(wanted) == 1 else None
    )
    if place is None:
        said = name if isinstance(name, str) else ", ".join(wanted) or "nothing"
        raise BaseModelError(
            f"pools by {said}, and a head reads the first or the last token, or the mean of all",
            where=str(path),
            todo="choose one: head.pooling: mean",
        )
    return place


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(f"cannot be read: {error}", where=str(path), todo=_TODO) from error
