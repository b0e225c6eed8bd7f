"""A process that ends when its parent is gone, and the end of all that it has started itself.

The starter holds the writing end of a pipe that is the process's standard input. The system closes that end
when the starter ends, however it ends; the process notices, and ends its whole group.
"""

import os
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import IO

_STDIN = 0
# How long processes have to end by themselves.
_PATIENCE_SECONDS = 10.0


def start_with_lifeline(
    command: Sequence[str], *, log: IO[bytes], environment: Mapping[str, str], inherited: Collection[int] = ()
) -> "subprocess.Popen[bytes]":
    """Start a process that calls :func:`follow_starter`; :func:`end_group` ends it.

    It gets a session of its own: Ctrl-C reaches the starter alone, which then ends all that it has started.

    Args:
        command: The program and its arguments.
        log: Where its output and its errors go.
        environment: Its whole environment.
        inherited: Open files of this process that it gets as well, by their numbers.
    """
    return subprocess.Popen(  # noqa: S603 - a module of our own, with paths of our own
        list(command),
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        start_new_session=True,
        pass_fds=tuple(inherited),
    )


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process that :func:`start_with_lifeline` started, and all that it started: politely, then not."""
    assert process.stdin is not None
    for end, patience in ((signal.SIGTERM, _PATIENCE_SECONDS), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, end)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
    process.stdin.close()


def follow_starter(clean_up: Callable[[], None] | None = None) -> None:
    """End this process and its group, by a kill, as soon as its parent is gone.

    Nothing happens where standard input is no pipe: a person started it. What this process starts inherits an
    empty input instead of the pipe: none of it may wait for an answer.

    Args:
        clean_up: Called before the end, for what is not in the group, such as containers. When it fails, the
            group is ended all the same.
    """
    if not stat.S_ISFIFO(os.fstat(_STDIN).st_mode):
        return
    lifeline = os.dup(_STDIN)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, _STDIN)
    os.close(empty)

    def wait() -> None:
        os.read(lifeline, 1)
        try:
            if clean_up is not None:
                clean_up()
        finally:
            os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
