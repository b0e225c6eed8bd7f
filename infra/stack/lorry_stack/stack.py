"""The three servers together: started in their order, each when the one before it answers."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lorry_registry.errors import LorryError, UsageError
from lorry_registry.files.file_locks import hold_lock
from lorry_registry.mlflow.artifacts import try_artifacts
from lorry_registry.mlflow.connection import MlflowConnection
from lorry_registry.mlflow.network import DIRECT_DOWNLOADS
from lorry_stack import mlflow_server, postgresql, seaweedfs
from lorry_stack.accounts import Account, choose_account
from lorry_stack.credentials import Credentials
from lorry_stack.options import RequestedOptions, StackOptions, choose_options
from lorry_stack.ports import LOOPBACK
from lorry_stack.private_files import write_private
from lorry_stack.processes import ProcessRecord, read_records, write_records
from lorry_stack.stack_layout import Layout

STORE = f"s3://{seaweedfs.STORE_BUCKET}/registry"
NAMES = (seaweedfs.NAME, postgresql.NAME, mlflow_server.NAME)

# Variables of other servers, among them other stacks, that would count beside or before those that are set.
_OTHERS = (
    *("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    *("MLFLOW_REGISTRY_URI", "MLFLOW_S3_ENDPOINT_URL"),
)
_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.2
_LOG_LINES = 15
# The last to be started is the first to be stopped.
_STOP_SIGNALS = {
    mlflow_server.NAME: mlflow_server.STOP_SIGNAL,
    postgresql.NAME: postgresql.STOP_SIGNAL,
    seaweedfs.NAME: seaweedfs.STOP_SIGNAL,
}


class Stack:
    """The servers of one folder.

    Args:
        folder: The folder; it is made by the first start.
        environment: The variables of this process, of which MLflow's server gets a few.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.layout = Layout(folder.absolute())
        self._environment = dict(environment)

    def start(self, requested: RequestedOptions, report: Callable[[str], None] = lambda _: None) -> list[str]:
        """Start what does not run, and return when everything answers.

        Args:
            requested: What the user asks for.
            report: Called with what is being done.

        Returns:
            The names of the servers that were started; none if all of them ran.

        Raises:
            ConflictError: A port that was asked for is taken.
            LorryError: A server does not start; its log is quoted.
            MissingExtraError: A program is not installed.
            UsageError: What is asked for does not fit what runs, or what is there.
        """
        layout = self.layout
        self._make_folder()
        with hold_lock(layout.lock):
            records = read_records(layout.processes)
            running = {name: record for name, record in records.items() if record.is_running()}
            options = self._choose_options(requested, is_running=bool(running))
            # What is missing is found out before anything is started.
            postgresql.find_programs()
            account = choose_account(layout.folder)
            credentials = Credentials.read_or_make(layout.credentials)
            options.write(layout.options)
            write_private(layout.variables, format_variables(build_variables(options, credentials)))
            starters: dict[str, Callable[[], ProcessRecord]] = {
                seaweedfs.NAME: lambda: self._start_seaweedfs(options, credentials),
                postgresql.NAME: lambda: self._start_postgresql(options, credentials, account),
                mlflow_server.NAME: lambda: mlflow_server.start(
                    layout.mlflow,
                    options,
                    credentials,
                    layout.locate_log(mlflow_server.NAME),
                    self._environment,
                ),
            }
            checks: dict[str, Callable[[], bool]] = {
                seaweedfs.NAME: lambda: seaweedfs.is_ready(options.s3_port, credentials),
                postgresql.NAME: lambda: postgresql.is_ready(options.postgresql_port, credentials),
                mlflow_server.NAME: lambda: mlflow_server.is_ready(options.mlflow_port),
            }
            started = []
            for name in NAMES:
                if name not in running:
                    report(f"starting {name} ...")
                    if name in records:
                        # What a killed server left behind would keep its port.
                        records[name].end(_STOP_SIGNALS[name], _STOP_SECONDS)
                    running[name] = starters[name]()
                    write_records(layout.processes, running)
                    started.append(name)
                self._wait_until_ready(name, running[name], checks[name])
            return started

    def check_artifacts(self) -> None:
        """Write, read and delete one of MLflow's artifacts, as its clients do, in this process's environment.

        Raises:
            TrackingError: It does not work; the message names the address that does not answer.
        """
        variables = self.list_variables()
        for name in _OTHERS:
            os.environ.pop(name, None)
        os.environ.update(variables)
        try_artifacts(MlflowConnection(variables["MLFLOW_TRACKING_URI"]))

    def stop(self) -> list[str]:
        """Stop what runs; the data stay.

        Returns:
            The names of the servers that ran.
        """
        if not self.layout.processes.exists():
            return []
        with hold_lock(self.layout.lock):
            records = read_records(self.layout.processes)
            stopped = []
            for name, asking in _STOP_SIGNALS.items():
                record = records.get(name)
                if record is None:
                    continue
                if record.is_running():
                    stopped.append(name)
                record.end(asking, _STOP_SECONDS)
            self.layout.processes.unlink()
        return stopped

    def list_running(self) -> list[str]:
        """Return the names of the servers that run."""
        records = read_records(self.layout.processes)
        return [name for name in NAMES if name in records and records[name].is_running()]

    def read_options(self) -> StackOptions:
        """Return what the stack was started with.

        Raises:
            UsageError: It never was.
        """
        options = StackOptions.read(self.layout.options)
        if options is None:
            raise UsageError(
                "no stack was started in this folder",
                where=str(self.layout.folder),
                todo=f"run: {self.layout.format_make('stack')}",
            )
        return options

    def list_variables(self) -> dict[str, str]:
        """Return the variables by which Lorry and plain MLflow find the servers; passwords are among them.

        Raises:
            UsageError: The stack never was started.
        """
        options = self.read_options()
        return build_variables(options, Credentials.read_or_make(self.layout.credentials))

    def _make_folder(self) -> None:
        folder = self.layout.folder
        try:
            # PostgreSQL's user has to pass through it; each thing in it has rights of its own.
            folder.mkdir(parents=True, exist_ok=True)
            self.layout.lock.touch()
        except OSError as error:
            raise UsageError(
                f"it cannot be written: {error.strerror}",
                where=str(folder),
                todo="name another folder, for example: make stack STACK=~/lorry-stack",
            ) from error

    def _choose_options(self, requested: RequestedOptions, *, is_running: bool) -> StackOptions:
        before = StackOptions.read(self.layout.options)
        if not is_running or before is None:
            return choose_options(requested, before)
        different = requested.list_differences(before)
        if different:
            raise UsageError(
                f"the stack runs with other options: {', '.join(different)}",
                where=str(self.layout.folder),
                todo=f"stop it first: {self.layout.format_make('stack-stop')}",
            )
        return before

    def _start_seaweedfs(self, options: StackOptions, credentials: Credentials) -> ProcessRecord:
        folder, log = self.layout.seaweedfs, self.layout.locate_log(seaweedfs.NAME)
        folder.mkdir(mode=0o700, exist_ok=True)
        log.touch(mode=0o600)
        command = seaweedfs.build_command(folder, options.s3_port)
        seaweedfs.write_identities(folder, credentials, shares_artifacts=options.artifacts == "direct")
        # Its own variables would add an administrator, and its home may hold settings.
        environment = {"PATH": self._environment.get("PATH", ""), "HOME": str(folder)}
        return ProcessRecord.start(command, folder=folder, log=log, environment=environment)

    def _start_postgresql(
        self, options: StackOptions, credentials: Credentials, account: Account | None
    ) -> ProcessRecord:
        folder, log = self.layout.postgresql, self.layout.locate_log(postgresql.NAME)
        postgresql.make_databases(folder, credentials.postgresql_admin, account)
        return postgresql.start(folder, options.postgresql_port, log, account)

    def _wait_until_ready(self, name: str, record: ProcessRecord, is_ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        # Another server may answer at its port by now: it must run.
        while not (record.is_running() and is_ready()):
            if not record.is_running() or time.monotonic() > deadline:
                log = self.layout.locate_log(name)
                lines = log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]
                quoted = "".join(f"\n    {line}" for line in lines)
                stop = self.layout.format_make("stack-stop")
                raise LorryError(
                    f"{name} does not {'answer' if record.is_running() else 'start'}:{quoted}",
                    where=str(log),
                    todo=f"correct what the log says; {stop} ends the others",
                )
            time.sleep(_POLL_SECONDS)


def build_variables(options: StackOptions, credentials: Credentials) -> dict[str, str]:
    """Return the variables by which Lorry and plain MLflow find the servers."""
    login = (
        {
            "MLFLOW_TRACKING_USERNAME": mlflow_server.ADMIN,
            "MLFLOW_TRACKING_PASSWORD": credentials.mlflow_admin,
        }
        if options.login == "basic"
        else {}
    )
    return {
        "LORRY_STORE": STORE,
        **seaweedfs.list_variables(options.s3_port, credentials.s3_key, credentials.s3_secret),
        "MLFLOW_TRACKING_URI": f"http://{LOOPBACK}:{options.mlflow_port}",
        # MLflow would let its clients fetch files from S3's loopback address.
        DIRECT_DOWNLOADS: "false",
        **login,
    }


def format_variables(variables: Mapping[str, str]) -> str:
    """Return lines for a shell that set variables, and unset those of other servers that would count more."""
    lines = [f"unset {' '.join(_OTHERS)}", *(f"export {name}='{value}'" for name, value in variables.items())]
    return "\n".join(lines) + "\n"
