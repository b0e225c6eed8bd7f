"""A connection to MLflow: opened on first use, safe to open twice at once, its errors say what to do."""

import contextlib
import importlib.util
import logging
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lorry_registry.errors import MissingExtraError, TrackingError
from lorry_registry.files.file_locks import hold_lock
from lorry_registry.mlflow.network import (
    BRIEF,
    DIRECT_DOWNLOADS,
    STEADY,
    ClientVariables,
    RequestLimits,
    limit_s3,
)
from lorry_registry.text.addresses import HIDDEN, hide_secrets, list_secrets, split_tracking_address
from lorry_registry.text.scrubbing import scrub_text
from lorry_registry.text.sqlite_addresses import find_database_file, name_database

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_DATABASE_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")

_DEFAULT_EXPERIMENT = "0"

_UNREACHABLE = "check that MLFLOW_TRACKING_URI is right and that MLflow is up"
_REFUSED = "MLflow answered and refused: look at the task there, and check that you may write"
# What is said of error codes of an MLflow that is up, in place of its own words; "": these are kept.
_ANSWERS: Mapping[str, tuple[str, str]] = {
    "UNAUTHENTICATED": (
        "MLflow does not accept who asks",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN; what stands "
        "before the @ of MLFLOW_TRACKING_URI counts more than these",
    ),
    "PERMISSION_DENIED": (
        "this user of MLflow may not do that",
        "let its administrator give the user EDIT on the task's experiment and registered model, or log in "
        "as another",
    ),
    "RESOURCE_DOES_NOT_EXIST": ("", _REFUSED),
    "RESOURCE_ALREADY_EXISTS": ("", _REFUSED),
    "INVALID_PARAMETER_VALUE": ("", _REFUSED),
    "INVALID_STATE": ("", _REFUSED),
}
# How MLflow says that what answered is not its own interface, but for example the page of a login.
_FOREIGN_ANSWER = "not in a valid JSON format"
_FOREIGN = (
    "what answers there is not MLflow, or a login stands before it",
    "check MLFLOW_TRACKING_URI; if a login stands before it, set MLFLOW_TRACKING_TOKEN",
)
# MLflow answers so to every name that is not among its allowed hosts.
_INVALID_HOST = "Invalid Host header"
_UNKNOWN_NAME = (
    "MLflow does not accept to be addressed by this name",
    "let its administrator start it with this name and port among its --allowed-hosts",
)
# Artifacts that do not go through the server are read and written with the user's own credentials for S3.
_S3 = (
    "artifacts are on S3, which says: {reason}",
    "check the AWS_* settings, and that they allow reading and writing where MLflow keeps artifacts",
)
# The client names neither the file's address nor the reason.
_DIRECT_FAILED = re.compile(r"Failed to download [0-9]+ chunk")
_DIRECT = (
    "the address on S3 that MLflow named for a file does not answer here",
    f"unset {DIRECT_DOWNLOADS}, so that files come through the server; lorry doctor names the address",
)
_TOO_LONG = "look at the server and at what it keeps artifacts on: lorry doctor"
# What a slow network carries at least.
_BYTES_PER_SECOND = 1 << 20
_MAX_REASON = 300
# The artifacts' way through the server has no error codes of its own.
_CODES = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
_BACKEND_ERRORS = {
    "mlflow.exceptions": ("MlflowException",),
    "sqlalchemy.exc": ("SQLAlchemyError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "boto3.exceptions": ("Boto3Error",),
}

_T = TypeVar("_T")


class MlflowConnection:
    """A client of MLflow, imported and opened on first use.

    Args:
        tracking_uri: The address of a server or a database.
        limits: How long a request may take.

    Raises:
        TrackingError: It is not an address.

    Attributes:
        tracking_uri: The address.
        address: The same without a password, for messages.
        database_file: The file of a SQLite address, None for every other.
        public_address: The same without a user and a password at all, as other users write it.
        is_database: Whether the address is a database that this process opens itself, without a server.
    """

    def __init__(self, tracking_uri: str, limits: RequestLimits = STEADY) -> None:
        self.tracking_uri = tracking_uri
        self._limits = limits
        self._variables = ClientVariables()
        self._deadline: float | None = None
        self._scheme = split_tracking_address(tracking_uri).scheme.partition("+")[0]
        self.address = hide_secrets(tracking_uri)
        self.database_file = find_database_file(tracking_uri)
        self.public_address = (
            name_database(self.database_file.absolute())
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
                _quietly("mlflow.store.db.utils"),
                self._locking_database(),
            ):
                if self.is_database and self.database_file is None:
                    # MLflow tries a database that does not answer for minutes; this fails at once.
                    read_table_names(self.tracking_uri)
                client = MlflowClient(self.tracking_uri)
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
    def reporting(self, what: str, limits: RequestLimits | None = None) -> Iterator[None]:
        """Turn an error of MLflow, or of the way to it, into a ``TrackingError`` that says what was tried.

        Args:
            what: What is tried, as a clause: ``open it``.
            limits: How long a request may take; None: as the connection's do.
        """
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise TrackingError(f"no time was left to {what}", where=self.address, todo=_TOO_LONG)
        try:
            with self._variables.set((limits or self._limits).list_variables()):
                yield
        except _list_backend_errors() as error:
            reason, todo = _explain_error(error)
            # The address in a message may hold a password.
            shown = reason.replace(self.tracking_uri, self.address)
            reason = scrub_text(shown, list_secrets(self.tracking_uri))
            raise TrackingError(f"cannot {what}: {reason}", where=self.address, todo=todo) from error

    @contextlib.contextmanager
    def limiting(self, seconds: float) -> Iterator[None]:
        """Make no request after some seconds, and wait for none of them as long as a training would.

        Raises:
            TrackingError: A request was to be made later.
        """
        before = self._limits, self._deadline
        self._limits, self._deadline = BRIEF, time.monotonic() + seconds
        try:
            yield
        finally:
            self._limits, self._deadline = before

    @contextlib.contextmanager
    def transferring(self, size: int = 0) -> Iterator[None]:
        """Read or write artifacts, for as long as their size takes a slow network.

        Args:
            size: The largest file, in bytes.
        """
        if not self.is_database:
            limit_s3()
        extra = size // _BYTES_PER_SECOND
        if self._deadline is not None:
            self._deadline += extra
        longer = RequestLimits(self._limits.seconds + extra, self._limits.retries)
        with self._variables.set(longer.list_variables()):
            yield

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
    def _locking_database(self) -> Iterator[None]:
        """Hold the lock of a SQLite file, if it is one, and make it if it is not there."""
        path = self.database_file
        if path is None:
            yield
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # MLflow creates the tables of a new database without a lock: two processes at once would break it.
        with hold_lock(path.with_name(f"{path.name}.lock")):
            if not path.exists() or path.stat().st_size == 0:
                _create_database(path)
            # MLflow tries a file that it cannot open again and again, for minutes; this fails at once.
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA schema_version")
            yield


def _create_database(path: Path) -> None:
    """Make a SQLite database with MLflow's tables, complete or not at all.

    MLflow takes some seconds for its tables, and refuses for ever a file in which a killed process left only
    a part of them. So they are made in another file, which then takes the name.
    """
    from mlflow.tracking import MlflowClient

    unfinished = path.with_name(f"{path.name}.new")
    # A process that was killed left it: the holder of the lock is the only one to write it.
    for left in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
        left.unlink(missing_ok=True)
    client = MlflowClient(name_database(unfinished))
    # MLflow's own, empty for ever, would stand among the tasks; it can be restored.
    client.delete_experiment(_DEFAULT_EXPERIMENT)
    unfinished.replace(path)


def read_table_names(uri: str) -> list[str]:
    """Return the names of the tables of a database, whose driver is asked once.

    Raises:
        ModuleNotFoundError: The driver is not installed.
        SQLAlchemyError: The database cannot be opened.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        return sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def _explain_error(error: Exception) -> tuple[str, str]:
    """Return what is wrong, and what to do."""
    reason = _summarize_error(error)
    if _DIRECT_FAILED.search(reason):
        return _DIRECT
    if type(error).__module__.partition(".")[0] in ("boto3", "botocore"):
        return _S3[0].format(reason=reason), _S3[1]
    if _INVALID_HOST in reason:
        return _UNKNOWN_NAME
    if _FOREIGN_ANSWER in reason:
        return _FOREIGN
    code = getattr(error, "error_code", "") or _CODES.get(_find_status(error), "")
    what, todo = _ANSWERS.get(code, ("", _UNREACHABLE))
    return what or reason, todo


def _find_status(error: Exception) -> int:
    """Return the status of the answer that an error of requests stands for; 0 if there is none."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _summarize_error(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    if "Caused by" in line:
        # urllib3 nests the cause in three layers of what was tried.
        line = line.rpartition(": ")[2].partition(" (read timeout")[0].strip("'\") ")
    line = line if len(line) <= _MAX_REASON else f"{line[:_MAX_REASON]}…"
    return line or type(error).__name__


def _list_backend_errors() -> tuple[type[Exception], ...]:
    # MLflow's own, requests' (an OSError), SQLite's, SQLAlchemy's, boto3's; only what was imported can be
    # raised.
    imported = [
        getattr(sys.modules[module], name)
        for module, names in _BACKEND_ERRORS.items()
        if module in sys.modules
        for name in names
    ]
    return (OSError, sqlite3.Error, *imported)


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


def set_beside_others(
    set_value: Callable[[], object], is_there: Callable[[], bool], *, replaces: bool = True
) -> None:
    """Set a tag or an alias that others may be setting at the same time.

    MLflow looks whether there is one, and then writes: of two that set a new one at once, the second breaks a
    constraint of the database.

    Args:
        set_value: Sets it.
        is_there: Looks whether there is one.
        replaces: Whether the other's is replaced.

    Raises:
        MlflowException: It cannot be set, for another reason.
    """
    from mlflow.exceptions import MlflowException

    try:
        set_value()
    except MlflowException:
        if not is_there():
            raise
        if replaces:
            set_value()
