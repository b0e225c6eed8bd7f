"""Lorry's registry: which small adapter belongs to which downstream task, on which frozen base.

The architecture, from the top down; imports follow the arrows and never go up
------------------------------------------------------------------------------
``lorry_pipelines``
    The graph of steps, running it here, compiling it for a cluster, and the ``lorry`` command.

    |
    v

``lorry_components``
    What a step does, room by room::

        studies                  comparisons of methods and grids of their options
          |
          v
        steps                    the pipeline's steps
          |
          v
        memory     drift         what a task would take; whether new inputs are like its rows
          |
          v
        tasks                    a task's spec, checked and brought together with its base and data
          |
          v
        serving                  many tasks over HTTP; above inference
          |
          v
        training   inference     the trainer; one way to load an adapter and to predict
          |            |
          v            v
        methods    task_types    how a base becomes trainable; examples, heads and predictions
          |            |
          v            v
        metrics                  scores and their bootstrap intervals
          |
          v
        models     data          questions about a base; sources, records, checks, splits

    |
    v

``lorry_registry`` (this package; light: no torch, no transformers, no kfp)
    :mod:`~lorry_registry.cli` has the registry's commands, each in the module of its name.
    :class:`~lorry_registry.registry.Registry` is the one class that most users need.
    :mod:`~lorry_registry.mlflow_index` shows the ledger in MLflow; it is never read as truth:
    :mod:`~lorry_registry.mlflow_repair` corrects what was edited there, and
    :mod:`~lorry_registry.mlflow_adoption` takes a champion over into the ledger, but only on request.
    :mod:`~lorry_registry.adapter_cache` keeps verified copies of adapters on this machine, up to a size.
    :mod:`~lorry_registry.verification` re-hashes an adapter folder before anything may load it.
    :mod:`~lorry_registry.ledger` is the truth about which adapter belongs to which task: an append-only
    history and a head that moves by compare-and-swap; :mod:`~lorry_registry.promotion` holds its pure rules,
    :mod:`~lorry_registry.challenges` those about who has tried to beat a champion before.
    :mod:`~lorry_registry.row_fingerprints` recognise the rows that an adapter was trained on, and count what
    changed in its data since.
    :mod:`~lorry_registry.work_leases` let one of several triggers retrain a task, and no more than one.
    :mod:`~lorry_registry.signing` signs adapters and events, and judges them by the reader's policy;
    :mod:`~lorry_registry.provenance` tells how an adapter was made.
    :mod:`~lorry_registry.collection` frees what no ledger needs, :mod:`~lorry_registry.leases` keep it from
    what is being written or read, and :mod:`~lorry_registry.task_deletion` deletes tasks and restores them.
    :mod:`~lorry_registry.ledger_packs` and :mod:`~lorry_registry.ledger_claims` keep long histories quick.
    :mod:`~lorry_registry.stores` keep bytes under keys with conditional writes.
    :mod:`~lorry_registry.manifest` says what an adapter is; the digest of a manifest is the adapter's id.
    :mod:`~lorry_registry.task_spec` says what a task is, :mod:`~lorry_registry.task_loading` reads one.
    :mod:`~lorry_registry.errors` is the one exception tree, :mod:`~lorry_registry.digests` the canonical
    form.

Data flows one way: task file -> prepared data -> adapter folder -> evaluation -> decision -> store ->
ledger -> MLflow. Readers go from a task's name through the ledger to the store, verify every byte, and load.
"""

from lorry_registry.errors import LorryError
from lorry_registry.ledger import Ledger
from lorry_registry.ledger_documents import Champion, Event
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
