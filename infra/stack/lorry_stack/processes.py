"""Processes that were started here: known by more than a number, and ended without touching any other.

A number alone is reused by the system, so a record also holds when its process began. A server's children
may outlive it when it is killed; they are known by the session that it opened and a variable it was given.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, TypeAdapter

from lorry_registry.files.atomic_write import write_whole_text
from lorry_stack.accounts import Account

MARK = "LORRY_STACK"
_POLL_SECONDS = 0.05
_PROC = Path("/proc")


class ProcessRecord(BaseModel):
    """A process that was started.

    Attributes:
        pid: Its number, which is that of its session as well.
        began: When it began, as the system writes it.
        mark: What the variable ``LORRY_STACK`` of it and its children holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    began: str
    mark: str

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        folder: Path,
        log: Path,
        environment: Mapping[str, str],
        account: Account | None = None,
    ) -> Self:
        """Start a process in a session of its own, which outlives this one.

        Args:
            command: The program and its arguments, which everybody on the machine can read.
            folder: Its working folder.
            log: What it prints is added to this file.
            environment: All its variables.
            account: The user that it runs as; None: this one.

        Raises:
            OSError: It cannot be started.
        """
        mark = str(folder)
        user = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
        with log.open("ab") as stream:
            process = subprocess.Popen(  # noqa: S603 -- a server of ours
                list(command),
                cwd=folder,
                env={**environment, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **user,  # type: ignore[call-overload]
            )
        # It outlives this process: its handle is not to wait for it, nor to complain that it still runs.
        process.returncode = 0
        return cls(pid=process.pid, began=_find_beginning(process.pid) or "", mark=mark)

    def is_running(self) -> bool:
        """Return whether this very process is there and has not ended."""
        return self.began != "" and _find_beginning(self.pid) == self.began

    def end(self, asking: signal.Signals, patience: float) -> None:
        """Ask a process to end, wait, and kill it if it does not; then end what it left behind.

        Args:
            asking: The signal that asks it.
            patience: How many seconds it may take.
        """
        if self.is_running():
            os.kill(self.pid, asking)
            if not self._wait(patience):
                os.kill(self.pid, signal.SIGKILL)
                self._wait(patience)
        for child in self._find_children():
            os.kill(child, signal.SIGKILL)

    def _wait(self, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while self.is_running():
            if time.monotonic() > deadline:
                return False
            _reap(self.pid)
            time.sleep(_POLL_SECONDS)
        return True

    def _find_children(self) -> Iterator[int]:
        wanted = f"{MARK}={self.mark}".encode()
        for entry in _PROC.iterdir() if _PROC.is_dir() else ():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                is_child = os.getsid(int(entry.name)) == self.pid
                if is_child and wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)
            except OSError:
                # It has ended meanwhile, or belongs to another user.
                continue


_RECORDS = TypeAdapter(dict[str, ProcessRecord])


def read_records(path: Path) -> dict[str, ProcessRecord]:
    """Return the processes that were recorded, by the names of their servers."""
    return _RECORDS.validate_json(path.read_bytes()) if path.exists() else {}


def write_records(path: Path, records: Mapping[str, ProcessRecord]) -> None:
    """Record processes."""
    write_whole_text(path, _RECORDS.dump_json(dict(records), indent=2).decode() + "\n")


def _find_beginning(pid: int) -> str | None:
    """Return when a process began; None if there is none, or it has ended and only waits to be reaped."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text("utf-8").rpartition(")")[2].split()
        boot = (_PROC / "sys/kernel/random/boot_id").read_text("utf-8").strip()
    except OSError:
        return None if _PROC.is_dir() else _ask_ps(pid)
    # The state is the third field, the start in ticks since the boot the twenty-second; two are cut off.
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"


def _ask_ps(pid: int) -> str | None:
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    state, _, began = answer.stdout.strip().partition(" ")
    return None if not began or state.startswith("Z") else began.strip()


def _reap(pid: int) -> None:
    """Let go of a child of this very process that has ended; others are reaped by their parents."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
