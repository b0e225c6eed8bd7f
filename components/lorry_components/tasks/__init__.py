"""A task as a whole.

:mod:`definition` makes a checked task of a file or document, :mod:`checks` says whether it works on its base,
and :mod:`staleness` compares it with the adapters that exist.
"""
