"""Garbage collection: what nothing refers to any more, and what a task no longer keeps, leaves the store.

:mod:`~lorry_registry.collection.marks` has the pure rules: which versions of a task stay, and why.
:mod:`~lorry_registry.collection.inventory` lists what lies in a store, and how old it is.
:mod:`~lorry_registry.collection.plan` compares the two; nothing is changed by it.
:mod:`~lorry_registry.collection.sweep` removes what a plan found, after looking again.
:mod:`~lorry_registry.collection.findings` are the words that these speak in, and

It is safe beside everything else that uses the store; :mod:`~lorry_registry.leases` says why.
"""

from lorry_registry.collection.findings import Finding, Kept, Plan, Rules, Sweep
from lorry_registry.collection.plan import plan_collection
from lorry_registry.collection.sweep import sweep_store

__all__ = ["Finding", "Kept", "Plan", "Rules", "Sweep", "plan_collection", "sweep_store"]
