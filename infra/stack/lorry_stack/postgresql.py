"""PostgreSQL, as the system has it installed: MLflow's databases."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from lorry_registry.errors import LorryError, MissingExtraError
from lorry_stack.accounts import Account
from lorry_stack.credentials import Credentials
from lorry_stack.ports import LOOPBACK
from lorry_stack.processes import ProcessRecord

NAME = "postgresql"
ADMIN, USER = "postgres", "mlflow"
DATABASE, AUTH_DATABASE = "mlflow", "mlflow_auth"
# It disconnects its clients, and writes everything to disk.
STOP_SIGNAL = signal.SIGINT

_DEBIAN = Path("/usr/lib/postgresql")
_LOCALE = {"LC_ALL": "C"}
_CONNECT_SECONDS = 2


def find_programs() -> Path:
    """Return the folder of PostgreSQL's programs: on the PATH, or where Debian puts the newest.

    Raises:
        MissingExtraError: It is not installed.
    """
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    versions = [path for path in _DEBIAN.glob("*/bin") if (path / "initdb").exists()]
    if versions:
        return max(versions, key=lambda path: tuple(map(int, path.parent.name.split("."))))
    raise MissingExtraError(
        "PostgreSQL is not installed: there is no initdb on the PATH or in /usr/lib/postgresql/*/bin",
        todo="on Debian and Ubuntu: apt-get install postgresql; on macOS: brew install postgresql",
    )


def make_databases(folder: Path, password: str, account: Account | None) -> None:
    """Make the folder of a database server, unless it is there.

    Args:
        folder: The folder; its parent exists.
        password: The administrator's.
        account: The user that the server runs as; None: this one.

    Raises:
        LorryError: ``initdb`` fails.
        MissingExtraError: PostgreSQL is not installed.
    """
    if (folder / "PG_VERSION").exists():
        return
    # initdb writes that file early: what a killed one left must not be taken for a whole.
    scratch = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    _give(scratch, account)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as password_file:
        password_file.write(password)
        password_file.flush()
        _give(Path(password_file.name), account)
        command = [
            str(find_programs() / "initdb"),
            *("--pgdata", str(scratch), "--username", ADMIN, "--auth", "scram-sha-256"),
            *("--pwfile", password_file.name, "--encoding", "UTF8", "--locale", "C"),
        ]
        user = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
        made = subprocess.run(  # noqa: S603 -- PostgreSQL's own program
            command,
            cwd=scratch,
            env={"PATH": os.defpath, **_LOCALE},
            capture_output=True,
            text=True,
            check=False,
            **user,  # type: ignore[call-overload]
        )
    if made.returncode != 0:
        lines = made.stderr.strip().splitlines() or ["it says nothing"]
        raise LorryError(
            f"initdb fails: {lines[-1]}", where=str(folder), todo="correct that, and run the command again"
        )
    scratch.rename(folder)


def start(folder: Path, port: int, log: Path, account: Account | None) -> ProcessRecord:
    """Start the server of a folder."""
    command = [
        str(find_programs() / "postgres"),
        *("-D", str(folder), "-h", LOOPBACK, "-p", str(port)),
        # No socket in the file system: everybody comes through the port, with a password.
        *("-c", "unix_socket_directories="),
    ]
    log.touch(mode=0o600)
    return ProcessRecord.start(
        command, folder=folder, log=log, environment={"PATH": os.defpath, **_LOCALE}, account=account
    )


def is_ready(port: int, credentials: Credentials) -> bool:
    """Return whether the server answers, and has MLflow's user and databases: what is missing is made."""
    import psycopg

    try:
        with _connect(port, credentials.postgresql_admin) as connection:
            _make_user(connection, credentials.postgresql)
            for name in (DATABASE, AUTH_DATABASE):
                _make_database(connection, name)
    except psycopg.OperationalError:
        return False
    return True


def build_address(port: int, database: str) -> str:
    """Return SQLAlchemy's address of a database; the password is in :func:`list_variables`."""
    return f"postgresql+psycopg://{USER}@{LOOPBACK}:{port}/{database}"


def list_variables(credentials: Credentials) -> dict[str, str]:
    """Return the variables of a client: the password is in no address and on no command line."""
    return {"PGPASSWORD": credentials.postgresql}


def _connect(port: int, password: str) -> Any:
    import psycopg

    return psycopg.connect(
        host=LOOPBACK,
        port=port,
        user=ADMIN,
        password=password,
        dbname="postgres",
        connect_timeout=_CONNECT_SECONDS,
        autocommit=True,
    )


def _make_user(connection: Any, password: str) -> None:
    from psycopg import sql

    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [USER]).fetchone() is None:
        statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        connection.execute(statement.format(sql.Identifier(USER), sql.Literal(password)))


def _make_database(connection: Any, name: str) -> None:
    from psycopg import sql

    if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
        statement = sql.SQL("CREATE DATABASE {} OWNER {}")
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(USER)))


def _give(path: Path, account: Account | None) -> None:
    if account is not None:
        os.chown(path, account.uid, account.gid)
