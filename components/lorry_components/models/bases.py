"""The frozen base: where it is, whether it is whole, and its fingerprint.

A base is a folder in the layout of transformers, with safetensors weights only, or one in the layout of
diffusers: a ``model_index.json`` and a folder for each part. Its fingerprint is one digest over the names and
contents of every file that decides what it computes: configuration, weights and tokenizer of each part that
is used. So the same base has the same fingerprint in a package, in a folder and from a hub.

Which files these are is declared once, at the top of this module: the fingerprint covers them, they are what
is downloaded from a hub, and plans read the configuration and the weights by the names given here.

``generation_config.json`` is not among them: Lorry never generates by it.
"""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lorry_components.models.named_bases import check_pushed, find_named_folder, read_named_manifest
from lorry_components.models.pooling import MODULES_NAME, POOLING_CONFIGS
from lorry_registry.errors import BaseModelError
from lorry_registry.files.digests import DigestFile, digest_file, digest_files
from lorry_registry.manifest import BaseIdentity
from lorry_registry.tasks.input_specs import BaseSpec

# What belongs to a base

CONFIG_NAME = "config.json"
PIPELINE_INDEX = "model_index.json"
"""What a folder in the layout of diffusers has at its root."""
WEIGHTS_PATTERN = "*.safetensors"

_TOKENIZER_CONFIG = "tokenizer_config.json"
_TOKENIZER = "tokenizer.json"
_TOKENIZER_VERSIONS = "tokenizer.*.json"
TOKENIZER_FILES = (
    _TOKENIZER,
    _TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    # Read by one or two tokenizers each, which need them even beside a tokenizer.json.
    "bpe.codes",
    "byte_maps.json",
    "emoji.json",
    "entity_vocab.json",
    "normalizer.json",
    "prophetnet.tokenizer",
    "source.spm",
    "target.spm",
    "target_vocab.json",
    "vocab-src.json",
    "vocab-tgt.json",
    "word_pronunciation.json",
    "word_shape.json",
)
"""Files of a tokenizer that count wherever they are."""

UNCONVERTED_PATTERNS = ("*.model", "*.tiktoken", "tekken.json")
"""Vocabularies that are converted when a tokenizer is loaded, and are not read beside a tokenizer.json."""

TOKENIZER_FILES_OF_CLASS = {"dict.txt": "BartphoTokenizer"}
"""Names that count for one tokenizer only: RoBERTa's dict.txt is a leftover of its training."""

_EXTRAS = (
    # The form of a prompt for a base that chats. Older bases have it in tokenizer_config.json.
    "chat_template.jinja",
    "additional_chat_templates/default.jinja",
    # transformers applies an adapter that lies in the folder of its base.
    "adapter_config.json",
)


@dataclass(frozen=True, slots=True)
class _Part:
    """One folder of a base.

    Attributes:
        folder: Where it is, relative to the base; empty: at its root.
        config: The name of its configuration, without which there is no such part.
        weights: Patterns of its weights' names; none: it has no weights.
        has_tokenizer: Whether a tokenizer is loaded from it.
    """

    folder: str
    config: str
    weights: tuple[str, ...] = ()
    has_tokenizer: bool = False

    def locate(self, name: str) -> str:
        """Return a file's path relative to the base."""
        return f"{self.folder}/{name}" if self.folder else name


def _weigh(stem: str) -> tuple[str, ...]:
    """Return patterns of weights in one file or several.

    Variants beside them are not matched: the same weights in half precision, or those before averaging.
    """
    number = "[0-9]" * 5
    return (
        f"{stem}.safetensors",
        f"{stem}-{number}-of-{number}.safetensors",
        f"{stem}.safetensors.index.json",
    )


_MODEL = _Part("", CONFIG_NAME, (WEIGHTS_PATTERN, f"{WEIGHTS_PATTERN}.index.json"), has_tokenizer=True)
# The parts that images are computed with. The safety checker of Stable Diffusion is none of them.
_PIPELINE = (
    _Part("unet", CONFIG_NAME, (*_weigh("diffusion_pytorch_model"), *_weigh("model"))),
    _Part("vae", CONFIG_NAME, (*_weigh("diffusion_pytorch_model"), *_weigh("model"))),
    _Part("text_encoder", CONFIG_NAME, (*_weigh("diffusion_pytorch_model"), *_weigh("model"))),
    _Part("tokenizer", _TOKENIZER_CONFIG, has_tokenizer=True),
    _Part("scheduler", "scheduler_config.json"),
)
# Weights that a pattern above matches, and that are never loaded.
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


def resolve_base(spec: BaseSpec, *, digest: DigestFile = digest_file) -> Base:
    """Find a base, check that it is whole, and compute its fingerprint; one elsewhere is downloaded once.

    Args:
        spec: The base.
        digest: Computes the digest of each file, or looks it up.

    Raises:
        BaseModelError: It is not there, lacks its configuration, weights or tokenizer, holds pickled weights
            only, or has another fingerprint than the task expects.
    """
    folder = find_base_folder(spec)
    architecture, names = list_base_files(folder)
    fingerprint = digest_files(folder, names, digest=digest)
    if spec.is_named:
        check_pushed(folder, fingerprint)
    return Base(folder, _identify(spec, fingerprint, architecture))


def identify_base(spec: BaseSpec, *, digest: DigestFile = digest_file) -> BaseIdentity:
    """Return what adapters record of a base. Of one with a logical name on S3 no file is downloaded.

    Raises:
        BaseModelError: As :func:`resolve_base`.
        StoreError: S3 cannot be reached.
    """
    manifest = read_named_manifest(spec) if spec.is_named and not spec.is_here else None
    if manifest is None:
        return resolve_base(spec, digest=digest).identity
    return _identify(spec, manifest.fingerprint, manifest.architecture)


def _identify(spec: BaseSpec, fingerprint: str, architecture: str) -> BaseIdentity:
    identity = BaseIdentity(
        model=spec.model, revision=spec.revision, fingerprint=fingerprint, architecture=architecture
    )
    if spec.fingerprint is not None:
        check_fingerprint(identity, spec.fingerprint)
    return identity


def list_base_files(folder: Path) -> tuple[str, list[str]]:
    """Return the architecture of the base in a folder, and the files that decide what it computes.

    Raises:
        BaseModelError: It lacks its configuration, weights or tokenizer, or holds pickled weights only.
    """
    if (folder / PIPELINE_INDEX).is_file():
        return _list_pipeline(folder)
    return _list_model(folder)


def check_fingerprint(identity: BaseIdentity, expected: str) -> None:
    """Check that a base is the one that a task expects.

    Raises:
        BaseModelError: It is another one.
    """
    if identity.fingerprint != expected:
        raise BaseModelError(
            f"its fingerprint is {identity.fingerprint}, and the task expects {expected}",
            where=identity.model,
            todo="install the base that the task names, or change base.fingerprint",
        )


def _list_model(folder: Path) -> tuple[str, list[str]]:
    """Return the architecture of a model of transformers', and the files that decide what it computes."""
    config = _read_config(folder, CONFIG_NAME)
    weights = _match_names(folder, _MODEL.weights)
    tokenizer = _list_tokenizer(folder)
    _check_weights(folder, weights)
    if not tokenizer:
        raise BaseModelError(
            "there is no tokenizer",
            where=str(folder),
            todo="save it beside: tokenizer.save_pretrained(folder)",
        )
    extras = [name for name in _EXTRAS if (folder / name).is_file()]
    architecture = (config.get("architectures") or [config.get("model_type", "unknown")])[0]
    return architecture, [CONFIG_NAME, *weights, *tokenizer, *extras]


def _list_pipeline(folder: Path) -> tuple[str, list[str]]:
    """Return the class of a pipeline of diffusers', and the files that decide what it computes."""
    index = _read_config(folder, PIPELINE_INDEX)
    names = {PIPELINE_INDEX}
    for part in _PIPELINE:
        _read_config(folder / part.folder, part.config)
        names.add(part.locate(part.config))
    for part in _PIPELINE:
        inner = folder / part.folder
        if part.weights:
            weights = _match_names(inner, part.weights)
            _check_weights(inner, weights)
            names.update(map(part.locate, weights))
        if part.has_tokenizer:
            names.update(map(part.locate, _list_tokenizer(inner)))
    return str(index.get("_class_name", "unknown")), sorted(names)


def _list_tokenizer(folder: Path) -> list[str]:
    """Return the names of the files that the tokenizer in a folder is loaded from."""
    names = {name for name in TOKENIZER_FILES if (folder / name).is_file()}
    config = _read_tokenizer_config(folder)
    # Of tokenizer.json there may be several versions, for several versions of transformers.
    versions = config.get("fast_tokenizer_files")
    if isinstance(versions, list):
        names.update(name for name in _match_names(folder, [_TOKENIZER_VERSIONS]) if name in versions)
    if _TOKENIZER not in names:
        names.update(_match_names(folder, UNCONVERTED_PATTERNS))
    for name, tokenizer_class in TOKENIZER_FILES_OF_CLASS.items():
        if config.get("tokenizer_class") == tokenizer_class and (folder / name).is_file():
            names.add(name)
    return sorted(names)


def _read_tokenizer_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / _TOKENIZER_CONFIG).read_text("utf-8"))
    except (OSError, ValueError):
        # It may be missing, and a damaged one is reported by the code that loads the tokenizer.
        return {}
    return config if isinstance(config, dict) else {}


def _match_names(folder: Path, patterns: Sequence[str]) -> list[str]:
    return sorted(
        path.name for path in folder.iterdir() if any(fnmatchcase(path.name, pattern) for pattern in patterns)
    )


def list_hub_patterns() -> list[str]:
    """Return the names and patterns to download from a hub: of both layouts, since neither is known yet."""
    return list(dict.fromkeys(_yield_hub_patterns()))


def _yield_hub_patterns() -> Iterator[str]:
    yield PIPELINE_INDEX
    yield from _EXTRAS
    # They say how states are pooled, and decide nothing that the base computes.
    yield from (MODULES_NAME, POOLING_CONFIGS)
    for part in (_MODEL, *_PIPELINE):
        yield part.locate(part.config)
        yield from map(part.locate, part.weights)
        if part.has_tokenizer:
            yield from map(part.locate, TOKENIZER_FILES)
            yield from map(part.locate, UNCONVERTED_PATTERNS)
            yield from map(part.locate, TOKENIZER_FILES_OF_CLASS)
            yield part.locate(_TOKENIZER_VERSIONS)


def find_base_folder(spec: BaseSpec) -> Path:
    """Return the folder that a base reference names.

    Raises:
        BaseModelError: There is no such package, folder, name or hub revision.
        StoreError: The base has a logical name on S3, which cannot be reached.
    """
    if spec.is_named:
        return find_named_folder(spec)
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
        package_spec = importlib.util.find_spec(top)
    except ValueError:
        # A module without a spec, such as __main__.
        package_spec = None
    if package_spec is None or not package_spec.submodule_search_locations:
        raise BaseModelError(
            f"there is no importable package {top!r}", where=reference, todo=f"pip install the package {top}"
        )
    root = Path(next(iter(package_spec.submodule_search_locations)))
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
                allow_patterns=list_hub_patterns(),
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
