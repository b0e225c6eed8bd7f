"""A task as a short text: ``name@sha256:<hex>``, with its whole document in the store.

A pipeline's parameters travel as one argument of a process each, which Linux limits to 128 KiB: whole
documents would end at some 80 tasks, references end at more than a thousand. The digest makes a reference
mean the same task for ever.

Layout in the store: ``specs/<hex>.json``.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from lorry_registry.errors import Fault, InvalidTaskError, StoreError
from lorry_registry.files.digests import canonical_json, digest_bytes
from lorry_registry.stores import Store
from lorry_registry.tasks.task_loading import parse_task
from lorry_registry.tasks.task_spec import TASK_NAME, TaskSpec

_REFERENCE = re.compile(r"(?P<name>[a-z0-9][a-z0-9_-]{0,62})@(?P<digest>sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class TaskReference:
    """A task's name and the digest of its document."""

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}"


def refer_to_task(spec: TaskSpec) -> TaskReference:
    """Return the reference of a task; its document need not be in a store."""
    return TaskReference(spec.name, digest_bytes(_serialize(spec)))


def store_task(store: Store, spec: TaskSpec) -> TaskReference:
    """Keep a task's document in a store; repeating it is harmless.

    Raises:
        StoreError: The store cannot be written.
    """
    reference = refer_to_task(spec)
    store.create(_key(reference), _serialize(spec))
    return reference


def read_task(text: str, store: Store) -> TaskSpec:
    """Return the task that a run was given: by reference, or as a whole JSON document.

    Raises:
        InvalidTaskError: The text is neither, or the document has faults; all are listed.
        StoreError: The document is not in the store, or it was changed.
    """
    match = _REFERENCE.fullmatch(text)
    if match:
        return _read_referenced(TaskReference(**match.groupdict()), store)
    where = label_task(text)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refuse(where, "neither NAME@sha256:DIGEST nor JSON") from error
    if not isinstance(document, dict):
        raise _refuse(where, "JSON, but not an object with the fields of a task file")
    return parse_task(document, where=where, folder=Path("/"))


def label_task(text: str) -> str:
    """Return the name under which a task of a run is reported, even where it cannot be read at all."""
    match = _REFERENCE.fullmatch(text)
    if match:
        return match["name"]
    try:
        name = json.loads(text)["name"]
    except (ValueError, TypeError, KeyError, RecursionError):
        name = None
    if isinstance(name, str) and re.fullmatch(TASK_NAME, name):
        return name
    return f"unreadable-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _read_referenced(reference: TaskReference, store: Store) -> TaskSpec:
    key = _key(reference)
    stored = store.read(key)
    if stored is None:
        raise StoreError(
            f"the document of the task {reference.name} is not in the store",
            where=store.locate(key),
            todo="compile the pipeline again with this store, or restore the document from a backup",
        )
    if digest_bytes(stored.content) != reference.digest:
        raise StoreError(
            f"the document of the task {reference.name} was changed: its digest is another one",
            where=store.locate(key),
            todo="restore it from a backup, or remove it and compile the pipeline again",
        )
    spec = parse_task(json.loads(stored.content), where=store.locate(key), folder=Path("/"))
    if spec.name != reference.name:
        raise _refuse(str(reference), f"its document is that of the task {spec.name!r}")
    return spec


def _refuse(where: str, problem: str) -> InvalidTaskError:
    todo = "give each task as NAME@sha256:DIGEST, as lorry compile prints it, or as a whole JSON document"
    return InvalidTaskError(where, [Fault("tasks", problem)], todo=todo)


def _serialize(spec: TaskSpec) -> bytes:
    return canonical_json(spec.model_dump(mode="json"))


def _key(reference: TaskReference) -> str:
    return f"specs/{reference.digest.removeprefix('sha256:')}.json"
