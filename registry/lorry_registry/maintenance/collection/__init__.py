"""Remove from the store what nothing refers to any more, and what a task no longer keeps.

:mod:`~lorry_registry.maintenance.collection.marks` has the pure rules: which versions stay, and why.
:mod:`~lorry_registry.maintenance.collection.inventory` lists what lies in a store, and how old it is.
:mod:`~lorry_registry.maintenance.collection.collection_plan` compares the two; nothing is changed by it.
:mod:`~lorry_registry.maintenance.collection.sweep` removes what a plan found, after looking again.
:mod:`~lorry_registry.maintenance.collection.collection_findings` are the words that these speak in.

It is safe beside everything else that uses the store; :mod:`~lorry_registry.leases.content_leases` says why.
"""

from lorry_registry.maintenance.collection.collection_findings import Finding, Kept, Plan, Rules, Sweep
from lorry_registry.maintenance.collection.collection_plan import plan_collection
from lorry_registry.maintenance.collection.sweep import sweep_store

__all__ = ["Finding", "Kept", "Plan", "Rules", "Sweep", "plan_collection", "sweep_store"]
