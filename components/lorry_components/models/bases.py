"""The frozen base: where it is, whether it is whole, and its fingerprint.

A base is a folder in the layout of transformers, with safetensors weights only, or one in the layout of
diffusers: a ``model_index.json`` and a folder for each part. Its fingerprint is one digest over the names and
contents of its configuration, weights and tokeniser files, those of all parts that are computed with, so that
the same base has the same fingerprint in a package, in a folder and from a hub.
"""

import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorry_registry.digests import digest_files
from lorry_registry.errors import BaseModelError
from lorry_registry.manifest import BaseIdentity
from lorry_registry.task_spec import BaseSpec

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
# What a base that chats is asked. Older ones have it in tokenizer_config.json.
_CHAT_TEMPLATE = "chat_template.jinja"
_HUB_PATTERNS = [
    *("config.json", "*.safetensors", "*.safetensors.index.json", *_TOKENIZER_FILES),
    _CHAT_TEMPLATE,
]
PIPELINE_INDEX = "model_index.json"
"""What a folder in the layout of diffusers has at its root."""

# The parts that images are computed with. The safety checker of Stable Diffusion is none of them.
_PIPELINE_PARTS: Mapping[str, str] = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "scheduler": "scheduler_config.json",
}
_WEIGHED_PARTS = ("unet", "vae", "text_encoder")
# Not the variants beside them: the same weights in half precision, or those that training goes on from.
_PIPELINE_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_PIPELINE_PATTERNS = [PIPELINE_INDEX, *(f"{part}/*.json" for part in _PIPELINE_PARTS), "tokenizer/merges.txt"]
_UNUSED = ["safety_checker/*", "*.fp16*.safetensors*", "*.non_ema*.safetensors*", "flax/*", "onnx/*"]
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5")


@dataclass(frozen=True, slots=True)
class Base:
    """A base that is on this machine.

    Attributes:
        folder: Where its files are.
        identity: What adapters record of it.
    """

    folder: Path
    identity: BaseIdentity


def resolve_base(spec: BaseSpec) -> Base:
    """Find a base, check that it is whole, and compute its fingerprint. A hub id is downloaded once.

    Raises:
        BaseModelError: It is not there, lacks its configuration, weights or tokeniser, holds pickled weights
            only, or has another fingerprint than the task expects.
    """
    folder = find_base_folder(spec)
    if (folder / PIPELINE_INDEX).is_file():
        architecture, names = _list_pipeline(folder)
    else:
        architecture, names = _list_model(folder)
    fingerprint = digest_files(folder, names)
    if spec.fingerprint is not None and spec.fingerprint != fingerprint:
        raise BaseModelError(
            f"its fingerprint is {fingerprint}, and the task expects {spec.fingerprint}",
            where=spec.model,
            todo="install the base that the task names, or change base.fingerprint",
        )
    identity = BaseIdentity(
        model=spec.model, revision=spec.revision, fingerprint=fingerprint, architecture=architecture
    )
    return Base(folder, identity)


def _list_model(folder: Path) -> tuple[str, list[str]]:
    """Return the architecture of a model of transformers', and the files that decide what it computes."""
    config = _read_config(folder, "config.json")
    weights = sorted(path.name for path in folder.glob("*.safetensors*"))
    tokenizer = [name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    _check_weights(folder, weights)
    if not tokenizer:
        raise BaseModelError(
            "there is no tokeniser",
            where=str(folder),
            todo="save it beside: tokenizer.save_pretrained(folder)",
        )
    chat = [_CHAT_TEMPLATE] if (folder / _CHAT_TEMPLATE).is_file() else []
    architecture = (config.get("architectures") or [config.get("model_type", "unknown")])[0]
    return architecture, ["config.json", *weights, *tokenizer, *chat]


def _list_pipeline(folder: Path) -> tuple[str, list[str]]:
    """Return the class of a pipeline of diffusers', and the files that decide what it computes."""
    index = _read_config(folder, PIPELINE_INDEX)
    names = [PIPELINE_INDEX]
    for part, config in _PIPELINE_PARTS.items():
        _read_config(folder / part, config)
        names.append(f"{part}/{config}")
    for part in _WEIGHED_PARTS:
        weights = sorted(
            path.name for path in (folder / part).iterdir() if _PIPELINE_WEIGHTS.fullmatch(path.name)
        )
        _check_weights(folder / part, weights)
        names += [f"{part}/{name}" for name in weights]
    names += [
        f"tokenizer/{name}"
        for name in _TOKENIZER_FILES
        if name != _PIPELINE_PARTS["tokenizer"] and (folder / "tokenizer" / name).is_file()
    ]
    return str(index.get("_class_name", "unknown")), names


def find_base_folder(spec: BaseSpec) -> Path:
    """Return the folder that a base reference names.

    Raises:
        BaseModelError: There is no such package, folder or hub revision.
    """
    if spec.is_package:
        return _find_package_folder(spec.model)
    if spec.is_folder:
        folder = Path(spec.model).expanduser()
        if not folder.is_dir():
            raise BaseModelError("there is no such folder", where=spec.model, todo="correct base.model")
        return folder
    return _download(spec)


def _find_package_folder(reference: str) -> Path:
    package, _, inner = reference.removeprefix("package:").partition("/")
    # Only a top-level package is looked up: finding a submodule would import its parents.
    top, *nested = package.split(".")
    try:
        found = importlib.util.find_spec(top)
    except ValueError:
        # A module without a spec, such as __main__.
        found = None
    if found is None or not found.submodule_search_locations:
        raise BaseModelError(
            f"there is no importable package {top!r}", where=reference, todo=f"pip install the package {top}"
        )
    root = Path(next(iter(found.submodule_search_locations)))
    folder = root.joinpath(*nested, inner)
    if not folder.is_dir() or not folder.resolve().is_relative_to(root.resolve()):
        raise BaseModelError(
            f"the package has no folder {'/'.join([*nested, inner])!r}",
            where=reference,
            todo="correct base.model",
        )
    return folder


def _download(spec: BaseSpec) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                spec.model,
                revision=spec.revision,
                allow_patterns=[*_HUB_PATTERNS, *_PIPELINE_PATTERNS],
                ignore_patterns=_UNUSED,
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BaseModelError(
            f"cannot be downloaded: {type(error).__name__}: {error}".splitlines()[0],
            where=f"{spec.model}@{spec.revision}",
            todo="check the id, the revision, the network and the hub token, or name a local folder",
        ) from error


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise BaseModelError(
            f"there is no {name}",
            where=str(folder),
            todo="name a folder that transformers or diffusers saved",
        ) from error
    except (OSError, ValueError) as error:
        raise BaseModelError(f"cannot be read: {error}", where=str(path), todo="restore the base") from error
    if not isinstance(config, dict):
        raise BaseModelError("is not a JSON object", where=str(path), todo="restore the base")
    return config


def _check_weights(folder: Path, weights: list[str]) -> None:
    if any(name.endswith(".safetensors") for name in weights):
        return
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise BaseModelError(
            f"its weights are pickles ({pickles[0]}), which can run code when they are loaded",
            where=str(folder),
            todo="convert them: model.save_pretrained(folder) writes safetensors",
        )
    raise BaseModelError(
        "there are no weights (*.safetensors)",
        where=str(folder),
        todo="name a folder that holds the weights",
    )
