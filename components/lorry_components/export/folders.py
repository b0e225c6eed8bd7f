"""New folders that appear whole or not at all."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from lorry_registry.errors import ConflictError, StoreError


@contextlib.contextmanager
def fill_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside ``target``, which takes its place at the end, or none if the block raises.

    Raises:
        ConflictError: ``target`` exists.
        StoreError: It cannot be written.
    """
    if target.exists():
        raise ConflictError("the folder exists", where=str(target), todo="name another one")
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        for path in partial.rglob("*.safetensors"):
            # safetensors makes files that no one but their owner reads.
            path.chmod(0o644)
        partial.rename(target)
    except OSError as error:
        raise StoreError(
            f"it cannot be written: {error}", where=str(target), todo="free space, or check its rights"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
