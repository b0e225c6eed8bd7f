"""The ledger: which version of an adapter serves a task, by an append-only history.

:mod:`~lorry_registry.ledger.ledger` reads and appends, with a head that moves by compare-and-swap;
:mod:`~lorry_registry.ledger.events` are its documents, :mod:`~lorry_registry.ledger.promotion` holds its pure
rules. :mod:`~lorry_registry.ledger.packs` and :mod:`~lorry_registry.ledger.claims` keep long histories quick.
"""
