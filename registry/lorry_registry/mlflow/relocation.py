"""An MLflow in a SQLite file whose folder was moved: where its artifacts are now, and how it learns of that.

MLflow writes the whole path of every artifact into the database and offers no request that changes it. After
a move it goes on reading from, and writing to, the place where the folder was.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lorry_registry.errors import TrackingError
from lorry_registry.files.file_locks import hold_lock

# The folder of the artifacts of studies. No task's name begins with an underscore.
STUDIES_FOLDER = "_studies"

# The tables and columns that hold the addresses of artifacts, in MLflow 3.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def find_former_root(database: Path, root: Path) -> Path | None:
    """Return the folder in which the database of a moved folder believes its artifacts to be, or None.

    They are where the database says unless that folder is gone, or the database has another one beside it:
    then it was moved or copied. Two paths to one folder are the same place.

    Args:
        database: The SQLite file.
        root: Where its artifacts lie if they lie beside it.

    Raises:
        TrackingError: The file is not a database of MLflow's.
    """
    if not database.exists():
        return None
    with _reporting(database), contextlib.closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "SELECT e.artifact_location, t.value FROM experiments e JOIN experiment_tags t"
            " ON t.experiment_id = e.experiment_id AND t.key = 'lorry.task' ORDER BY e.experiment_id"
        ).fetchall()
    formers = (_find_root(location, task) for location, task in rows)
    return next((former for former in formers if former is not None and _has_moved(former, root)), None)


def _find_root(location: str, task: str) -> Path | None:
    """Return the folder above what Lorry lays out: ``<root>/<task>`` and ``<root>/_studies/<task>``."""
    recorded = _find_path(location)
    if recorded is None or recorded.name != task:
        return None
    return recorded.parent.parent if recorded.parent.name == STUDIES_FOLDER else recorded.parent


def _has_moved(before: Path, now: Path) -> bool:
    if before == now:
        return False
    if before.parent.exists() and now.parent.exists() and before.parent.samefile(now.parent):
        return False
    # A database alone was moved if its artifacts are still where they were.
    return now.exists() or not before.exists()


def relocate_artifacts(database: Path, former: Path, root: Path) -> int:
    """Make a database name the place where its artifacts are, all or nothing, and return how many it names.

    Only addresses below the former folder are changed.

    Args:
        database: The SQLite file.
        former: The folder that it names.
        root: The folder that it is to name.

    Raises:
        TrackingError: The database cannot be written, or is not MLflow's.
    """
    count = 0
    lock = database.with_name(f"{database.name}.lock")
    # A prefix is compared whole: LIKE would take the underscores of a path for any letter.
    opened = contextlib.closing(sqlite3.connect(database))
    with hold_lock(lock), _reporting(database), opened as connection, connection:
        for before, after in _spell_prefixes(former, root):
            for table, column in _ADDRESSES:
                changed = connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"  # noqa: S608 - names of ours
                    f" WHERE substr({column}, 1, ?) = ?",
                    (after, len(before) + 1, len(before), before),
                )
                count += changed.rowcount
    return count


def _spell_prefixes(former: Path, root: Path) -> Iterable[tuple[str, str]]:
    # MLflow keeps addresses as they were given: as a file: address, or as a plain path.
    return [(f"{former.as_uri()}/", f"{root.as_uri()}/"), (f"{former}/", f"{root}/")]


def _find_path(address: str) -> Path | None:
    if address.startswith("/"):
        return Path(os.path.normpath(address))
    if not address.startswith("file:"):
        return None
    return Path(os.path.normpath(unquote(urlsplit(address).path)))


@contextlib.contextmanager
def _reporting(database: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise TrackingError(
            f"cannot correct the places of its artifacts: {error}",
            where=str(database),
            todo="check that this file is MLflow's database, that this user may write it, and that no other "
            "program holds it",
        ) from error
