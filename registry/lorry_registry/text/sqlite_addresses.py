"""Addresses of SQLite files, as the installed SQLAlchemy reads and writes them."""

import importlib.util
import re
from pathlib import Path
from urllib.parse import quote, unquote

from lorry_registry.errors import TrackingError

_PREFIX = "sqlite:///"
# After the shorter prefix, MLflow makes the folder of a path as it stands there, with its escapes.
_DRIVER_PREFIX = "sqlite+pysqlite:///"
# What an address must escape. SQLAlchemy takes a while to import, and most paths have none of it.
_SPECIAL = re.compile(r"[%?#]")


def name_database(path: Path) -> str:
    """Return the address of a file.

    Raises:
        TrackingError: The installed SQLAlchemy has no address for it.
    """
    text = str(path)
    if not _SPECIAL.search(text):
        return f"{_PREFIX}{text}"
    address = f"{_DRIVER_PREFIX}{_escape(text)}"
    if find_database_file(address) != path:
        raise TrackingError(
            "SQLAlchemy cannot open a database in a folder of this name",
            where=text,
            todo="pip install 'sqlalchemy>=2.1', or set LORRY_HOME to a folder without % ? # in its path",
        )
    return address


def find_database_file(address: str) -> Path | None:
    """Return the file of a SQLite database, or None if an address names anything else."""
    prefix = next((each for each in (_PREFIX, _DRIVER_PREFIX) if address.startswith(each)), None)
    if prefix is None:
        return None
    text = address.removeprefix(prefix).partition("?")[0]
    if _SPECIAL.search(text):
        text = _unescape(text)
    return None if text in ("", ":memory:") else Path(text)


def _escape(path: str) -> str:
    if importlib.util.find_spec("sqlalchemy") is None:
        # Nothing can open it then.
        return quote(path, safe=" +/")
    from sqlalchemy import URL

    return URL.create("sqlite", database=path).render_as_string(hide_password=False).removeprefix(_PREFIX)


def _unescape(text: str) -> str:
    if importlib.util.find_spec("sqlalchemy") is None:
        return unquote(text)
    from sqlalchemy import make_url

    return make_url(f"{_PREFIX}{text}").database or ""
