"""Is this folder exactly the adapter that its manifest names? Needs no torch.

PEFT would fall back to a pickle, import a library that the config names, and ignore what it does not know.
So nothing reaches it that was not checked here: an exact list of files, each re-hashed, a weights file whose
header is sane, and a config that names no code.
"""

import json
import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorry_registry.errors import AdapterRejectedError
from lorry_registry.files.digests import digest_bytes, digest_file
from lorry_registry.files.regular_files import open_regular
from lorry_registry.manifest import (
    ADAPTER_FILES,
    CONFIG_NAME,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    FileEntry,
    Manifest,
)
from lorry_registry.signing.adapter_signatures import SIDECAR_FOLDERS
from lorry_registry.signing.attestations import find_sidecar_problems

_MAX_HEADER_BYTES = 1 << 20
_MAX_CONFIG_BYTES = 1 << 20
_MAX_MANIFEST_BYTES = 4 << 20
_DTYPE_BYTES = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1},
    **{"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1},
}
_CODE_KEYS = ("auto_mapping", "parent_library", "base_model_class")
_RETRY = "pull the adapter again; if this happens again, the stored copy is damaged"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor as the header of a weights file describes it."""

    dtype: str
    shape: tuple[int, ...]


def verify_adapter(
    folder: Path, *, expected_id: str | None = None, beside: frozenset[str] = frozenset()
) -> Manifest:
    """Re-hash an adapter folder and return its manifest.

    Args:
        folder: A folder with a manifest and exactly the files that it lists.
        expected_id: The adapter id that the caller asked for.
        beside: Names of what may lie beside the adapter's own files, and is not read; of ``signatures`` and
            ``provenance`` it is checked that they are folders of small, plain JSON files.

    Raises:
        AdapterRejectedError: A file is missing, extra, changed or not a plain file.
    """
    manifest = read_manifest(folder)
    if expected_id is not None and manifest.adapter_id != expected_id:
        raise AdapterRejectedError(
            f"its id is {manifest.adapter_id}, not {expected_id}", where=str(folder), todo=_RETRY
        )
    names = {entry.name for entry in folder.iterdir()}
    extra = sorted(names - {MANIFEST_NAME, *ADAPTER_FILES} - beside)
    problems = [f"{name} does not belong to it" for name in extra]
    for name in sorted(names & beside & SIDECAR_FOLDERS):
        problems += find_sidecar_problems(folder / name)
    check_files(folder, manifest, further=problems)
    return manifest


def check_files(folder: Path, manifest: Manifest, *, further: Sequence[str] = (), todo: str = _RETRY) -> None:
    """Check that the files listed in a manifest are in a folder, unchanged and safe to load.

    Args:
        folder: A folder that holds the files; it may hold others.
        manifest: What they should be.
        further: Problems that the caller knows of, to be reported together with those of the files.
        todo: What the user can do when a file is not as it should be.

    Raises:
        AdapterRejectedError: A file is missing, changed or not a plain file.
    """
    try:
        problems = [*further, *_compare_files(folder, manifest)]
    except OSError as error:
        raise AdapterRejectedError(
            f"cannot be read: {error.strerror}", where=str(error.filename or folder), todo=todo
        ) from error
    if problems:
        raise AdapterRejectedError("; ".join(problems), where=str(folder), todo=todo)
    read_config(folder)
    read_tensor_entries(folder / WEIGHTS_NAME)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an adapter folder, without looking at its other files.

    Raises:
        AdapterRejectedError: There is none, it cannot be read, or it is not in canonical form.
    """
    path = folder / MANIFEST_NAME
    content = _read_small_file(path, _MAX_MANIFEST_BYTES)
    manifest = Manifest.parse(content, where=str(path))
    try:
        canonical = manifest.adapter_id == digest_bytes(content)
    except ValueError:
        # A NaN or half a surrogate pair deep in the recipe: no canonical form has them.
        canonical = False
    if not canonical:
        raise AdapterRejectedError("the manifest is not in canonical form", where=str(path), todo=_RETRY)
    return manifest


def describe_file(path: Path) -> FileEntry:
    """Return the entry of a file for a manifest.

    Raises:
        OSError: The file cannot be read.
    """
    return FileEntry(name=path.name, size=path.stat().st_size, sha256=digest_file(path))


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``adapter_config.json`` and refuse one that would make a loader import code.

    Raises:
        AdapterRejectedError: It is missing, not a JSON object, or names code.
    """
    path = folder / CONFIG_NAME
    try:
        config = json.loads(_read_small_file(path, _MAX_CONFIG_BYTES))
    except (ValueError, RecursionError) as error:
        raise AdapterRejectedError(f"not JSON: {error}", where=str(path), todo=_RETRY) from error
    if not isinstance(config, dict):
        raise AdapterRejectedError("not a JSON object", where=str(path), todo=_RETRY)
    naming_code = [key for key in _CODE_KEYS if config.get(key)]
    if naming_code:
        raise AdapterRejectedError(
            f"{', '.join(naming_code)} would import code", where=str(path), todo="do not use this adapter"
        )
    return config


def read_tensor_entries(path: Path) -> dict[str, TensorEntry]:
    """Read the header of a safetensors file: names, types and shapes, in order of name.

    The format: eight bytes of little-endian header length, a JSON header, the tensors' bytes
    (https://github.com/huggingface/safetensors).

    Raises:
        AdapterRejectedError: Too short, a header above 1 MiB or not as the format says, or bytes that no
            tensor claims.
    """
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            length = struct.unpack("<Q", stream.read(8))[0] if size >= 8 else 0
            if not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
                raise AdapterRejectedError(
                    f"a header of {length} bytes cannot be right", where=str(path), todo=_RETRY
                )
            header = json.loads(stream.read(length))
    except OSError as error:
        raise AdapterRejectedError(f"cannot be read: {error}", where=str(path), todo=_RETRY) from error
    except (ValueError, RecursionError) as error:
        raise AdapterRejectedError(
            f"its header is not JSON: {error}", where=str(path), todo=_RETRY
        ) from error
    return _parse_header(header, size - 8 - length, path)


def _parse_header(header: Any, data_bytes: int, path: Path) -> dict[str, TensorEntry]:
    try:
        entries = {name: _parse_entry(entry) for name, entry in header.items() if name != "__metadata__"}
        if not entries:
            raise ValueError("it holds no tensor")
        end = 0
        for start, stop in sorted(offsets for _, offsets in entries.values()):
            if start != end:
                raise ValueError("its tensors do not follow one another")
            end = stop
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AdapterRejectedError(
            f"its header is malformed: {error}", where=str(path), todo=_RETRY
        ) from error
    if end != data_bytes:
        raise AdapterRejectedError(
            f"its tensors take {end} bytes, the file has {data_bytes}", where=str(path), todo=_RETRY
        )
    return {name: entries[name][0] for name in sorted(entries)}


def _parse_entry(entry: Any) -> tuple[TensorEntry, tuple[int, int]]:
    dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, start, stop)):
        raise ValueError("a shape or an offset is not a whole number")
    if dtype not in _DTYPE_BYTES:
        raise ValueError(f"no adapter has numbers of type {dtype!r}")
    if stop - start != _DTYPE_BYTES[dtype] * math.prod(shape):
        raise ValueError(f"a tensor of type {dtype} and shape {list(shape)} has {stop - start} bytes")
    return TensorEntry(dtype, shape), (start, stop)


def _compare_files(folder: Path, manifest: Manifest) -> Iterator[str]:
    expected = {entry.name: entry for entry in manifest.files}
    names = [entry.name for entry in manifest.files]
    if sorted(names) != sorted(ADAPTER_FILES):
        yield f"an adapter has the files {', '.join(ADAPTER_FILES)}; the manifest lists {', '.join(names)}"
    for name, entry in sorted(expected.items()):
        path = folder / name
        if path.is_symlink() or (path.exists() and not path.is_file()):
            yield f"{name} is not a plain file"
        elif not path.exists():
            yield f"{name} is missing"
        elif path.stat().st_size != entry.size:
            yield f"{name} has {path.stat().st_size} bytes instead of {entry.size}"
        elif digest_file(path) != entry.sha256:
            yield f"{name} was changed: its SHA-256 is not the one in the manifest"


def _read_small_file(path: Path, limit: int) -> bytes:
    try:
        if path.is_symlink():
            raise AdapterRejectedError("is a symbolic link", where=str(path), todo=_RETRY)
        with open_regular(path) as stream:
            # One more than it has: a file that grows meanwhile is seen, and no more room is taken.
            content = stream.read(min(os.fstat(stream.fileno()).st_size, limit) + 1)
    except OSError as error:
        raise AdapterRejectedError(
            f"cannot be read: {error.strerror}", where=str(path), todo="give the folder of an adapter"
        ) from error
    if len(content) > limit:
        raise AdapterRejectedError(f"is larger than {limit} bytes", where=str(path), todo=_RETRY)
    return content
