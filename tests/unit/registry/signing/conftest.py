"""Fixtures for signatures."""

from fixtures.signing import key_pairs, open_registry, ours, theirs  # noqa: F401
