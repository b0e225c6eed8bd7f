"""Starts the steps of a local run: ``python -m lorry_pipelines.local.step_starter SOCKET``.

Each step is a process of its own, as everywhere. But most of a small task's time went into importing the same
libraries in each: torch, transformers, PEFT, MLflow. This process imports them once, while the command still
checks its tasks, and each step begins as a copy of it (a fork), with the environment, the arguments and the
output that it would have had as a new process. Nothing but imports happens here, and so nothing of one step
can reach another.

A request is a message on the socket with three open files: the request as JSON, where the step's output goes,
and where the answer goes. The answer is a line ``started``, and the exit code on a line when the step has
ended. This process ends, with all steps, when whoever holds the other end of its standard input is gone.
"""

import contextlib
import gc
import importlib
import os
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict

from lorry_components.process_setup import ease_garbage_collection, leave_process, quiet_libraries
from lorry_registry.whole_files import write_whole_text

STARTED = "started"
_MOST_BYTES = 16
_STDIN = 0
_EXECUTOR = "kfp.dsl.executor_main"
# kfp loads what a step needs of it and no more where this is set, as the steps' own commands do.
_STEP_VARIABLE = ("_KFP_RUNTIME", "true")
# What steps import, a part at a time: in between, requests are answered.
_FOR_PREPARATION = ("kfp.dsl.executor", "kfp.dsl.kfp_config", "lorry_components.steps.prepare_data.entry")
_FOR_TRAINING = (
    "torch",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "peft",
    "transformers.trainer",
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
    "lorry_components.training.trainer",
    "lorry_components.steps.finetune.entry",
)
_FOR_LATER_STEPS = (
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "mlflow.store.model_registry.sqlalchemy_store",
    "lorry_components.steps.evaluate.entry",
    "lorry_components.steps.gate.entry",
    "lorry_components.steps.register.entry",
    "lorry_components.steps.report.entry",
    "lorry_components.steps.verdict.entry",
)
# It begins before the libraries of training are there, which it does without.
_EARLY = "prepare_data"
# A thread of pyarrow's memory allocator, which makes itself ready for a fork.
_HARMLESS_THREAD = "jemalloc_bg_thd"


class StepRequest(BaseModel):
    """A step to start.

    Attributes:
        step: The name of the component's function.
        source: The component's source.
        arguments: The arguments of Kubeflow's executor.
        environment: The step's whole environment.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str
    source: str
    arguments: tuple[str, ...]
    environment: dict[str, str]


class StepStarter:
    """Imports what steps need, and starts a copy of itself for each step.

    Args:
        requests: Where requests come in.
    """

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._selector = selectors.DefaultSelector()
        self._selector.register(requests, selectors.EVENT_READ)
        self._selector.register(_STDIN, selectors.EVENT_READ)
        self._missing = [*_FOR_PREPARATION, *_FOR_TRAINING, *_FOR_LATER_STEPS]
        self._answers: dict[int, tuple[int, IO[str]]] = {}

    def serve(self) -> None:
        """Answer requests, and import what is missing while there are none, until this process is killed."""
        while True:
            for key, _ in self._selector.select(0 if self._missing else None):
                if key.fileobj is self._requests:
                    self._take_request()
                elif key.fd == _STDIN:
                    os.killpg(os.getpgrp(), signal.SIGKILL)
                else:
                    self._report_end(key.fd)
            self._import_next()

    def _import_next(self) -> None:
        if not self._missing:
            return
        # What is not installed, or fails, does so again in the step that needs it, which reports it.
        with contextlib.suppress(Exception):
            importlib.import_module(self._missing.pop(0))
        # The collector of a step would touch, and so copy, what all steps share.
        gc.freeze()

    def _take_request(self) -> None:
        message, files, _, _ = socket.recv_fds(self._requests, _MOST_BYTES, 3)
        if not message:
            # The runner has ended. This process is ended by whoever started both.
            self._selector.unregister(self._requests)
            return
        described, output, answered = files
        with os.fdopen(described, encoding="utf-8") as stream:
            request = StepRequest.model_validate_json(stream.read())
        answer = os.fdopen(answered, "w", encoding="utf-8")
        while request.step not in _EARLY and set(self._missing) & set(_FOR_TRAINING):
            self._import_next()
        if _counts_as_one_thread():
            self._start(request, output, answer)
        else:
            # Locks that another thread holds would stay locked in the copy.
            answer.close()
        os.close(output)

    def _start(self, request: StepRequest, output: int, answer: IO[str]) -> None:
        process = os.fork()
        if process == 0:
            # Only whoever waits for the step may hold these: it waits for their end.
            for _, other in self._answers.values():
                other.close()
            answer.close()
            self._selector.close()
            self._requests.close()
            _become_step(output, request)
            leave_process(_run_executor(request))
        print(STARTED, file=answer, flush=True)
        ended = os.pidfd_open(process)
        self._answers[ended] = (process, answer)
        self._selector.register(ended, selectors.EVENT_READ)

    def _report_end(self, ended: int) -> None:
        process, answer = self._answers.pop(ended)
        self._selector.unregister(ended)
        os.close(ended)
        _, status = os.waitpid(process, 0)
        # Whoever waited for it may be gone, and then nobody needs the answer.
        with contextlib.suppress(BrokenPipeError), answer:
            print(os.waitstatus_to_exitcode(status), file=answer)


def _counts_as_one_thread() -> bool:
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return threading.active_count() == 1 and len([name for name in threads if name != _HARMLESS_THREAD]) == 1


def _become_step(output: int, request: StepRequest) -> None:
    """Take a step's input, output and environment."""
    with Path(os.devnull).open("rb") as empty:
        os.dup2(empty.fileno(), _STDIN)
    os.dup2(output, sys.stdout.fileno())
    os.dup2(output, sys.stderr.fileno())
    os.close(output)
    os.environ.clear()
    os.environ.update(request.environment)
    os.environ.update([_STEP_VARIABLE])
    if "numpy" in sys.modules:
        import numpy as np

        # Python's own generator is seeded anew in a copy; this one would draw the same numbers in all steps.
        np.random.seed()


def _run_executor(request: StepRequest) -> int:
    """Do what the step's command does, run Kubeflow's executor on the component, and return the exit code."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            module = Path(folder) / "ephemeral_component.py"
            write_whole_text(module, request.source)
            sys.argv = [_EXECUTOR, "--component_module_path", str(module), *request.arguments]
            runpy.run_module(_EXECUTOR, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - it is printed as at the end of any process
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def main(descriptor: int) -> None:
    """Start steps for whoever is at the other end of an inherited socket."""
    warnings.simplefilter("ignore")
    os.environ.update([_STEP_VARIABLE])
    quiet_libraries()
    ease_garbage_collection()
    StepStarter(socket.socket(fileno=descriptor)).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
