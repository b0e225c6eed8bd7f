"""A connection to MLflow: opened on first use, safe to open twice at once, its errors say what to do."""

import contextlib
import importlib.util
import logging
import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lorry_registry.addresses import HIDDEN, hide_secrets, list_secrets, split_tracking_address
from lorry_registry.errors import MissingExtraError, TrackingError
from lorry_registry.file_locks import hold_lock
from lorry_registry.scrubbing import scrub_text

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_DATABASE_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")

_DEFAULT_EXPERIMENT = "0"

# Error codes of an MLflow that is up and refuses.
_REFUSALS = (
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
)

_T = TypeVar("_T")


class MlflowConnection:
    """A client of MLflow, imported and opened on first use.

    Args:
        tracking_uri: The address of a server or a database.

    Raises:
        TrackingError: It is not an address.

    Attributes:
        address: The same without a password, for messages.
        database_file: The file of a SQLite address, None for every other.
        public_address: The same without a user and a password at all, as somebody else would write it.
        is_database: Whether the address is a database that this process opens itself, without a server.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._scheme = split_tracking_address(tracking_uri).scheme.partition("+")[0]
        self.address = hide_secrets(tracking_uri)
        self.database_file = _find_database_file(tracking_uri)
        self.public_address = (
            f"sqlite:///{self.database_file.absolute()}"
            if self.database_file is not None
            else self.address.replace(f"{HIDDEN}@", "", 1)
        )
        self.is_database = self._scheme in _DATABASE_SCHEMES

    @cached_property
    def client(self) -> "MlflowClient":
        """The client.

        Raises:
            MissingExtraError: The address needs a library that is not installed.
            TrackingError: The database cannot be opened.
        """
        needed = ["mlflow", *(["sqlalchemy"] if self.is_database else [])]
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingExtraError(
                f"an MLflow at this address needs {missing[0]!r}, which is not installed",
                where=self.address,
                todo="pip install 'lorry[train]', or set MLFLOW_TRACKING_URI to the address of a server",
            )
        from mlflow.tracking import MlflowClient

        try:
            with (
                self.reporting("open it"),
                self._locking_database() as is_new,
                _quietly("mlflow.store.db.utils"),
            ):
                client = MlflowClient(self._uri)
                if is_new:
                    # MLflow's own, empty for ever, would stand among the tasks; it can be restored.
                    client.delete_experiment(_DEFAULT_EXPERIMENT)
                if self.is_database:
                    # The registry's half is opened on its first use; that belongs under the lock as well.
                    client.search_registered_models(max_results=1)
        except ModuleNotFoundError as error:
            # SQLAlchemy imports the database's driver when it connects, and our extras install none.
            raise MissingExtraError(
                f"an MLflow at this address needs {error.name!r}, which is not installed",
                where=self.address,
                todo=f"pip install {error.name}, or set MLFLOW_TRACKING_URI to the address of a server",
            ) from error
        return client

    @contextlib.contextmanager
    def reporting(self, what: str) -> Iterator[None]:
        """Turn an error of MLflow, or of the way to it, into a ``TrackingError`` that says what was tried."""
        try:
            yield
        except _list_backend_errors() as error:
            # The address in a message may hold a password.
            summary = _summarize_error(error).replace(self._uri, self.address)
            summary = scrub_text(summary, list_secrets(self._uri))
            raise TrackingError(
                f"cannot {what}: {summary}", where=self.address, todo=_advise(error)
            ) from error

    def attempt(self, call: Callable[[], _T], *, unless: str) -> _T | None:
        """Return what a call returns, or None when MLflow answers with the given error code.

        Args:
            call: A request to MLflow.
            unless: The code, for example ``RESOURCE_DOES_NOT_EXIST``.
        """
        from mlflow.exceptions import MlflowException

        try:
            return call()
        except MlflowException as error:
            if error.error_code != unless:
                raise
        return None

    @contextlib.contextmanager
    def _locking_database(self) -> Iterator[bool]:
        """Hold the lock of a SQLite file, if it is one; yields whether the file is new."""
        path = self.database_file
        if path is None:
            yield False
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # MLflow creates the tables of a new database without a lock: two processes at once would break it.
        with hold_lock(path.with_name(f"{path.name}.lock")):
            is_new = not path.exists() or path.stat().st_size == 0
            # MLflow tries a file that it cannot open again and again, for minutes; this fails at once.
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA schema_version")
            yield is_new


def _summarize_error(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    if "Caused by" in line:
        # urllib3 nests the cause in three layers of what was tried.
        line = line.rpartition(": ")[2].strip("'\") ")
    return line or type(error).__name__


def _advise(error: Exception) -> str:
    if getattr(error, "error_code", "") in _REFUSALS:
        return "MLflow answered and refused: look at the task there, and check that you may write"
    return "check that MLFLOW_TRACKING_URI is right and that MLflow is up"


def _list_backend_errors() -> tuple[type[Exception], ...]:
    # MLflow's own, requests' (an OSError), SQLite's, SQLAlchemy's. Only what was imported can be raised.
    errors: list[type[Exception]] = [OSError, sqlite3.Error]
    for module, name in (("mlflow.exceptions", "MlflowException"), ("sqlalchemy.exc", "SQLAlchemyError")):
        if module in sys.modules:
            errors.append(getattr(sys.modules[module], name))
    return tuple(errors)


@contextlib.contextmanager
def _quietly(name: str) -> Iterator[None]:
    # Creating a database writes log lines that mean nothing to the person at the terminal.
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _find_database_file(tracking_uri: str) -> Path | None:
    path = tracking_uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(path) if tracking_uri.startswith("sqlite:///") and path not in ("", ":memory:") else None
