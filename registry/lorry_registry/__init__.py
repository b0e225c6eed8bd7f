"""Lorry's registry: which small adapter belongs to which downstream task, on which frozen base.

The architecture, from the bottom up
------------------------------------
``lorry_registry`` (this package; light: no torch, no transformers, no kfp)
    :mod:`~lorry_registry.errors` is the one exception tree, :mod:`~lorry_registry.digests` the canonical
    form. :mod:`~lorry_registry.task_spec` says what a task is, :mod:`~lorry_registry.task_document` parses
    YAML, and :mod:`~lorry_registry.task_loading` makes a task of it.
    :mod:`~lorry_registry.manifest` says what an adapter is; the digest of a manifest is the adapter's id.
    :mod:`~lorry_registry.stores` keep bytes under keys with conditional writes.
    :mod:`~lorry_registry.ledger` is the truth about which adapter belongs to which task: an append-only
    history and a head that moves by compare-and-swap; :mod:`~lorry_registry.promotion` holds its pure rules.
    :mod:`~lorry_registry.verification` re-hashes an adapter folder before anything may load it.
    :mod:`~lorry_registry.mlflow_index` shows the ledger in MLflow; it is never read as truth.
    :class:`~lorry_registry.registry.Registry` ties these together; :mod:`~lorry_registry.cli` is its face.
``lorry_components``
    What a pipeline step does: kinds of task, methods of adaptation, the steps themselves, and inference.
``lorry_pipelines``
    The graph of steps, running it here, compiling it for a cluster, and the ``lorry`` command.

Data flows one way: task file -> prepared data -> adapter folder -> evaluation -> decision -> store ->
ledger -> MLflow. Readers go from a task's name through the ledger to the store, verify every byte, and load.
"""

from lorry_registry.errors import LorryError
from lorry_registry.ledger import Champion, Event, Ledger
from lorry_registry.manifest import Manifest
from lorry_registry.registry import Registry, Resolution, TaskEntry
from lorry_registry.settings import Settings
from lorry_registry.stores import LocalStore, Store, open_store
from lorry_registry.task_loading import load_task
from lorry_registry.task_spec import TaskSpec
from lorry_registry.verification import verify_adapter

__all__ = [
    "Champion",
    "Event",
    "Ledger",
    "LocalStore",
    "LorryError",
    "Manifest",
    "Registry",
    "Resolution",
    "Settings",
    "Store",
    "TaskEntry",
    "TaskSpec",
    "load_task",
    "open_store",
    "verify_adapter",
]
