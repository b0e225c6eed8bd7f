"""Addresses of servers and databases: which parts may be shown and written down."""

import re
from urllib.parse import SplitResult, unquote, urlsplit

from lorry_registry.errors import StoreError, TrackingError

HIDDEN = "***"
_SECRET_KEY = re.compile(
    r"passw|pwd|secret|token|credential|signature|(access|api)[-_]?key|^sig$", re.IGNORECASE
)
_PAIR = re.compile(r"(?P<start>[?&;#])(?P<key>[^=&;#?\s]+)=(?P<value>[^&;#\s\"'<>)]*)")
# One slash: pathlib makes one of two, where an address is taken for a path.
_AUTHORITY = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:/{1,2})(?P<rest>.*)", re.DOTALL)
_PORT = re.compile(r"(\[.*\]|[^:\[\]]*)(:[0-9]*)?")


def hide_secrets(address: str) -> str:
    """Return an address with ``***`` for its user and password, and for the secrets in its query.

    Anything before the ``@`` is taken for a secret: many servers take a token in place of a user. The
    address need not be a valid one.
    """
    match = _AUTHORITY.match(address)
    if match is not None:
        userinfo = _find_userinfo(match["rest"])
        if userinfo is not None:
            address = f"{match['scheme']}{HIDDEN}{match['rest'][len(userinfo) :]}"
    return hide_query_secrets(address)


def hide_query_secrets(text: str) -> str:
    """Return a text with ``***`` for the values of keys such as ``password`` or ``token`` in a query."""
    return _PAIR.sub(
        lambda pair: (
            f"{pair['start']}{pair['key']}={HIDDEN}"
            if _SECRET_KEY.search(unquote(pair["key"]))
            else pair.group()
        ),
        text,
    )


def has_secret(address: str) -> bool:
    """Return whether an address holds a user, a password, or a secret in its query."""
    return hide_secrets(address) != address


def list_secrets(address: str) -> frozenset[str]:
    """Return the secrets of an address, each as it is written there and decoded."""
    match = _AUTHORITY.match(address)
    userinfo = _find_userinfo(match["rest"]) if match else None
    user, _, password = (userinfo or "").partition(":")
    values = {userinfo or "", password or user}
    values |= {pair["value"] for pair in _PAIR.finditer(address) if _SECRET_KEY.search(unquote(pair["key"]))}
    return frozenset(form for value in values for form in (value, unquote(value)) if form)


def split_store_address(address: str) -> SplitResult:
    """Return the parts of the address of a store.

    Raises:
        StoreError: It is not an address.
    """
    try:
        _refuse_null(address)
        return urlsplit(address)
    except ValueError as error:
        raise StoreError(
            f"not an address: {error}", where=hide_secrets(address), todo="correct LORRY_STORE"
        ) from None


def split_tracking_address(address: str) -> SplitResult:
    """Return the parts of the address of an MLflow.

    Raises:
        TrackingError: It is not an address.
    """
    try:
        _refuse_null(address)
        parts = urlsplit(address)
        # A port that is no number is found out only when it is asked for.
        parts.port  # noqa: B018
    except ValueError as error:
        raise TrackingError(
            f"not an address: {error}", where=hide_secrets(address), todo="correct MLFLOW_TRACKING_URI"
        ) from None
    return parts


def _refuse_null(address: str) -> None:
    # No file has such a name, and no database: each library would say so in its own way, some after minutes.
    if "\0" in unquote(address):
        raise ValueError("it holds a null character")


def _find_userinfo(rest: str) -> str | None:
    """Return what stands before the ``@`` of the host, or None."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority and not _PORT.fullmatch(authority) and "@" in rest:
        # An unescaped slash in a password ends the authority too soon.
        authority = rest
    userinfo, at, _ = authority.rpartition("@")
    return userinfo if at else None
