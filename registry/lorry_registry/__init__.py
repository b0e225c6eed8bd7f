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
    The registry, room by room::

        cli                      the registry's commands, each in the module of its name
          |
          v
        mlflow     pages         the ledger shown in MLflow and on a page, never read as truth;
        maintenance              collection, deletion, signing of what is unsigned
          |
          v
        registry                 the one class that most users need
          |
          v
        adapters   records       stored and cached adapters; what is written down beside one
          |
          v
        ledger     leases        the truth about which adapter belongs to which task; who works on what
          |
          v
        settings                 one frozen object, read from the environment
          |
          v
        signing    tasks         signatures and the reader's policy; what a task is
          |
          v
        stores                   bytes under keys, with conditional writes
          |
          v
        manifest                 what an adapter is; the digest of a manifest is the adapter's id
          |
          v
        retries                  waiting for other machines
          |
          v
        text       files         text without secrets; locks, atomic writes, digests
          |
          v
        errors                   the one exception tree

Data flows one way: task file -> prepared data -> adapter folder -> evaluation -> decision -> store ->
ledger -> MLflow. Readers go from a task's name through the ledger to the store, verify every byte, and load.
"""

from lorry_registry.adapters.verification import verify_adapter
from lorry_registry.errors import LorryError
from lorry_registry.ledger.events import Champion, Event
from lorry_registry.ledger.ledger import Ledger
from lorry_registry.manifest import Manifest
from lorry_registry.registry import Registry, Resolution, TaskEntry
from lorry_registry.settings import Settings
from lorry_registry.stores import LocalStore, Store, open_store
from lorry_registry.tasks.task_loading import load_task
from lorry_registry.tasks.task_spec import TaskSpec

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
