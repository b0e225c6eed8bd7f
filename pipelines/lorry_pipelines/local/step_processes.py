"""Processes for the steps of a local run, by the standard library's ``forkserver``.

A step is a process of its own, as everywhere, but begins as a copy of one that has imported the libraries.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import connection, forkserver, get_context
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from lorry_components.steps.runtime.outcomes import PROCEED

EXIT_STOP = 3
"""The exit code of a step after which its task goes no further."""

_PRELOADED = "lorry_pipelines.local.preloaded"
# A process that has used one of these must not be copied.
_ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/accel")

Call = Callable[[], str | None]
Step = tuple[str, Call]
"""What the log calls a step; and what it does: it can be pickled, and returns ``proceed`` to go on."""


def open_context() -> ForkServerContext | SpawnContext:
    """Return how steps are started, and let the process that they are copies of begin its imports.

    Beside an accelerator, and where threads make a copy unsafe, each step is a new process instead.
    """
    if sys.platform != "linux" or any(Path(device).exists() for device in _ACCELERATORS):
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([_PRELOADED])
    forkserver.ensure_running()
    return context


@dataclass(frozen=True, slots=True)
class StepProcesses:
    """Starts steps.

    Attributes:
        context: How.
        log: Where their output goes.
        variables: What their environment has beside that of this process.
    """

    context: ForkServerContext | SpawnContext
    log: Path
    variables: Mapping[str, str]

    def run_chains(self, chains: Iterable[Iterator[Step]], at_a_time: int) -> None:
        """Run the steps of chains to their end; a step that does not proceed is the last one of its chain.

        One thread does it: of two that start and await processes, one may read the other's exit code.

        Args:
            chains: Steps that are run one after the other.
            at_a_time: How many chains are run side by side.
        """
        waiting = iter(chains)
        running: dict[BaseProcess, Iterator[Step]] = {}

        def go_on(chain: Iterator[Step]) -> None:
            step = next(chain, None)
            if step is not None:
                running[self._start(step)] = chain

        while True:
            while len(running) < at_a_time and (chain := next(waiting, None)) is not None:
                go_on(chain)
            if not running:
                return
            ended = connection.wait([process.sentinel for process in running])
            for process in [process for process in running if process.sentinel in ended]:
                chain = running.pop(process)
                if _await(process) == 0:
                    go_on(chain)

    def run(self, step: Step) -> int:
        """Run one step to its end, and return its exit code."""
        return _await(self._start(step))

    def _start(self, step: Step) -> BaseProcess:
        name, call = step
        arguments = (call, self.log, dict(self.variables))
        process = self.context.Process(target=become_step, args=arguments, name=name)
        process.start()
        return process


def _await(process: BaseProcess) -> int:
    process.join()
    code = 1 if process.exitcode is None else process.exitcode
    if code not in (0, EXIT_STOP):
        print(f"{process.name} ended with exit code {code}", flush=True)  # noqa: T201 - the run's log
    process.close()
    return code


def become_step(call: Call, log: Path, variables: Mapping[str, str]) -> None:
    """Be a step: take its output and its environment, do its work, and exit.

    Raises:
        SystemExit: It has ended.
    """
    write_to(log)
    os.environ.update(variables)
    warnings.simplefilter("ignore")
    if "numpy" in sys.modules:
        import numpy as np

        # Python's own generator is seeded anew in a copy; this one would draw the same numbers in all steps.
        np.random.seed()
    try:
        answer = call()
    except SystemExit:
        raise
    except BaseException:  # noqa: BLE001 - printed as at the end of any process, without secrets
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    sys.exit(0 if answer == PROCEED else EXIT_STOP)


def write_to(log: Path) -> None:
    """Let what this process prints go to the end of a file."""
    opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(opened, stream.fileno())
    os.close(opened)
