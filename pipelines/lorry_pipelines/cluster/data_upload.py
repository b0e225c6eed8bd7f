"""Data of this machine, copied into the store under its digest, where pods can read it.

Layout in the store: ``data/<hex>/<file>``, the digest over the names and contents of all files of a source.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorry_components.data.layout import choose_layout
from lorry_components.data.sources.local import list_local_files
from lorry_components.tasks.resolution import ResolvedTask
from lorry_registry.errors import Fault, InvalidDataError, StoreError
from lorry_registry.stores import Store
from lorry_registry.stores.concurrency import map_concurrent
from lorry_registry.tasks.task_spec import TaskSpec


@dataclass(frozen=True, slots=True)
class Upload:
    """The files of a task's source, and where they go.

    Attributes:
        spec: The task, with its source in the store.
        files: Each file, and its key.
    """

    spec: TaskSpec
    files: tuple[tuple[Path, str], ...]


def plan_upload(task: ResolvedTask, store: Store) -> Upload:
    """Decide where a task's local data go; a task whose data are elsewhere keeps them there.

    Raises:
        InvalidDataError: The source is not there, or a file has a name that cannot be a key.
    """
    spec = task.spec
    if not spec.data.is_local:
        return Upload(spec, ())
    local = list_local_files(spec.data.source)
    layout = choose_layout(local.names, spec.data, in_folder=local.in_folder)
    names = sorted({*layout.names, *task.task_type.list_named_files(local.folder)})
    prefix = f"data/{task.source_digest.removeprefix('sha256:')}"
    files = tuple((local.folder / name, f"{prefix}/{name}") for name in names)
    _check_keys(spec, store, files)
    # A single file is named itself: a folder would be read as a table of all files in it.
    key = prefix if local.in_folder else f"{prefix}/{local.names[0]}"
    data = spec.data.model_copy(update={"source": store.locate(key)})
    return Upload(spec.model_copy(update={"data": data}), files)


def list_missing(uploads: Sequence[Upload], store: Store) -> list[tuple[Path, str]]:
    """Return the files whose keys are not in the store yet, each once.

    Raises:
        StoreError: The store cannot be read.
    """
    files = dict.fromkeys(file for upload in uploads for file in upload.files)
    prefixes = dict.fromkeys("/".join(key.split("/")[:2]) for _, key in files)
    listed = map_concurrent(lambda prefix: list(store.list_keys(prefix)), prefixes, store.concurrency)
    known = {key for keys in listed for key in keys}
    return [(path, key) for path, key in files if key not in known]


def _check_keys(spec: TaskSpec, store: Store, files: Sequence[tuple[Path, str]]) -> None:
    faults = []
    for path, key in files:
        try:
            store.locate(key)
        except StoreError as error:
            faults.append(Fault(path.name, error.what))
    if faults:
        raise InvalidDataError(
            spec.data.source, faults, todo="rename these files: letters, digits, '.', '_' and '-' only"
        )
