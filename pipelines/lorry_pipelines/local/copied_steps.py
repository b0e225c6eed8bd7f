"""Steps that begin as copies of one process: the runner's side of the step starter."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorry_components.lifelines import end_group, start_with_lifeline
from lorry_pipelines.local.step_starter import STARTED, StepRequest

# Of the commands that kfp 2.17 compiles a component to.
_SCRIPT_ENDS_WITH = '"$program_path/ephemeral_component.py"                         "$@"\n'
_FUNCTION = "--function_to_execute"
# A process that has used one of these must not be copied.
_ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/accel")


@dataclass(frozen=True, slots=True)
class Starter:
    """A process that starts steps.

    Attributes:
        process: The process.
        requests: The socket on which it is asked.
    """

    process: "subprocess.Popen[bytes]"
    requests: socket.socket


def can_copy_processes() -> bool:
    """Return whether steps can begin as copies of a process: on Linux, without an accelerator."""
    return sys.platform == "linux" and not any(Path(device).exists() for device in _ACCELERATORS)


@contextlib.contextmanager
def open_starter(environment: Mapping[str, str]) -> Iterator[Starter | None]:
    """Start the process that imports what steps need, and end it with all its steps in the end.

    Args:
        environment: Its environment, which decides how many threads a step computes with.

    Yields:
        The process; None where processes cannot be copied.
    """
    if not can_copy_processes():
        yield None
        return
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-P", "-m", "lorry_pipelines.local.step_starter", str(theirs.fileno())]
    # A pool of threads for numpy, which no step needs, would keep the process from being copied.
    variables = {**environment, "OPENBLAS_NUM_THREADS": "1"}
    with ours:
        with theirs, os.fdopen(os.open(os.devnull, os.O_WRONLY), "wb") as log:
            process = start_with_lifeline(
                command, log=log, environment=variables, inherited=[theirs.fileno()]
            )
        try:
            yield Starter(process, ours)
        finally:
            end_group(process)


@contextlib.contextmanager
def copy_steps(descriptor: int, environment: Mapping[str, str]) -> Iterator[None]:
    """Let Kubeflow's local runner have its steps started by a process that has imported what they need.

    A step that this process cannot start is started as Kubeflow's runner does it.

    Args:
        descriptor: The inherited socket on which that process is asked.
        environment: The environment of steps.
    """
    from kfp.local import subprocess_task_handler as handler

    stock: Callable[..., int] = handler.run_local_subprocess
    with socket.socket(fileno=descriptor) as requests:

        def run(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
            request = read_command(full_command, {**environment, **(env_vars or {})})
            code = run_copied(requests, request) if request is not None else None
            return stock(full_command, env_vars) if code is None else code

        handler.run_local_subprocess = run
        try:
            yield
        finally:
            handler.run_local_subprocess = stock


def read_command(command: Sequence[str], environment: Mapping[str, str]) -> StepRequest | None:
    """Return what a step's command says; None: it is not of the form that kfp gave it."""
    shell, source, arguments = command[:3], command[3:4], tuple(command[4:])
    known = len(shell) == 3 and shell[2].endswith(_SCRIPT_ENDS_WITH) and "kfp.dsl.executor_main" in shell[2]
    if not (known and source and _FUNCTION in arguments[:-1]):
        return None
    step = arguments[arguments.index(_FUNCTION) + 1]
    return StepRequest(step=step, source=source[0], arguments=arguments, environment=dict(environment))


def run_copied(requests: socket.socket, request: StepRequest) -> int | None:
    """Have a step started, print what it writes, and return its exit code; None: it was not started."""
    with contextlib.ExitStack() as stack:
        described = stack.enter_context(os.fdopen(os.memfd_create("request"), "w+", encoding="utf-8"))
        described.write(request.model_dump_json())
        described.flush()
        described.seek(0)
        output, written = _open_pipe(stack)
        answer, answered = _open_pipe(stack)
        try:
            socket.send_fds(requests, [b"step"], [described.fileno(), written.fileno(), answered.fileno()])
        except OSError:
            return None
        # Their other ends are with the step now, and its end is to be seen here.
        written.close()
        answered.close()
        if answer.readline().strip() != STARTED:
            return None
        for line in output:
            print(line, end="")  # noqa: T201 - the run's log
        code = answer.readline().strip()
        # Without a code, all processes of the run are being ended.
        return int(code) if code else 1


def _open_pipe(stack: contextlib.ExitStack) -> tuple[Any, Any]:
    reading, writing = os.pipe()
    return (
        stack.enter_context(os.fdopen(reading, encoding="utf-8", errors="replace")),
        stack.enter_context(os.fdopen(writing, "w", encoding="utf-8")),
    )
