"""Addresses of servers and databases: which parts may be shown and written down."""

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

_HIDDEN = "***"
_SECRET_KEY = re.compile(r"passw|pwd|secret|token|credential|(access|api)[-_]?key", re.IGNORECASE)


def hide_secrets(address: str) -> str:
    """Return an address with ``***`` for its password and for the secrets in its query."""
    parts = urlsplit(address)
    if parts.password is not None:
        host = parts.netloc.rpartition("@")[2]
        parts = parts._replace(netloc=f"{parts.username or ''}:{_HIDDEN}@{host}")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    if any(_SECRET_KEY.search(key) for key, _ in pairs):
        shown = [(key, _HIDDEN if _SECRET_KEY.search(key) else value) for key, value in pairs]
        parts = parts._replace(query=urlencode(shown, safe="*/:"))
    return address if parts == urlsplit(address) else parts.geturl()


def has_secret(address: str) -> bool:
    """Return whether an address holds a password, or a secret in its query."""
    return hide_secrets(address) != address
