"""Names of processes, by which one that looks later knows whether the process still runs."""

import os
import socket
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_PROC = Path("/proc")
# The 22nd field of /proc/<pid>/stat, counted behind the name, which may hold spaces; see proc(5).
_START_FIELD = 19


class ProcessName(BaseModel):
    """A process, distinguished from those that had or will have its number.

    Attributes:
        host: The machine's name.
        space: Which boot of it, and which container's numbers; "" where the system does not say.
        number: The process's number there.
        started: When it began, in the system's own ticks; "" where the system does not say.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    space: str = ""
    number: Annotated[int, Field(ge=1)]
    started: str = ""

    @classmethod
    def of_this_process(cls) -> "ProcessName":
        """Return the name of the process that asks."""
        number = os.getpid()
        space = _read_space()
        # Where nothing is known of the space, the number names another process, or none.
        started = _read_start(number) if space else None
        return cls(host=socket.gethostname(), space=space, number=number, started=started or "")

    def has_ended(self) -> bool:
        """Return whether the process is known to have ended; False where it cannot be known here."""
        if not self.space or not self.started or self.space != _read_space():
            return False
        started = _read_start(self.number)
        return _is_free(self.number) if started is None else started != self.started


def _read_space() -> str:
    """Return which numbers this process sees in ``/proc``; "" if they are not those that it counts by."""
    try:
        if (_PROC / "self").readlink().name != str(os.getpid()):
            # A container has its own numbers, and may see the machine's.
            return ""
        boot = (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _is_free(number: int) -> bool:
    # A process of another user may be hidden in /proc, but not from this.
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _read_start(number: int) -> str | None:
    try:
        status = (_PROC / str(number) / "stat").read_text("utf-8", errors="replace")
        return status.rpartition(")")[2].split()[_START_FIELD]
    except (OSError, IndexError):
        return None
