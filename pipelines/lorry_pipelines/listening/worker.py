"""Carries out requests one after the other: what came meanwhile is one retraining, not many."""

import logging
import subprocess
import threading
from collections.abc import Mapping, Sequence

from lorry_pipelines.listening.requests import RequestLog
from lorry_registry.errors import LorryError

_LOGGER = logging.getLogger(__name__)
_PATIENCE = 30.0
_MOST_TRIES = 3
# What a run ends with when a task of it failed: the same again would fail in the same way.
_TASK_FAILED = 12


class RetrainWorker:
    """A thread that retrains the tasks of pending requests.

    Args:
        log: The requests.
        command: What retrains; the files of tasks are put behind it.
        files: The file of each task by its name; what is asked for others is left alone.
        seconds: How long it waits for more after the first request, and between attempts.
    """

    def __init__(
        self, log: RequestLog, command: Sequence[str], files: Mapping[str, str], *, seconds: float = 5.0
    ) -> None:
        self._log = log
        self._command, self._files = list(command), dict(files)
        self._seconds = seconds
        self._wake, self._stop = threading.Event(), threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._work, name="retrain", daemon=True)

    def start(self) -> None:
        """Begin, with what a former process has left."""
        self._wake.set()
        self._thread.start()

    def wake(self) -> None:
        """Say that there is a request."""
        self._wake.set()

    def stop(self) -> None:
        """End, and end a retraining that runs: its requests stay pending."""
        self._stop.set()
        self._wake.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
        self._thread.join(_PATIENCE)

    def _work(self) -> None:
        tries = 0
        while not self._stop.is_set():
            self._wake.wait()
            # Files of one upload come one by one.
            self._stop.wait(self._seconds)
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                is_over = self._carry_out(is_last=tries + 1 >= _MOST_TRIES)
            except (LorryError, OSError) as error:
                _LOGGER.error("requests cannot be carried out now: %s", error)  # noqa: TRY400
                is_over = False
            tries = 0 if is_over else tries + 1
            # With less and less haste.
            if not is_over and not self._stop.wait(self._seconds * 2**tries):
                self._wake.set()

    def _carry_out(self, *, is_last: bool) -> bool:
        """Retrain what is asked for; return whether nothing is left to be tried again."""
        pending = [each for each in self._log.list_pending() if self._files.keys() & set(each.tasks)]
        tasks = sorted({task for request in pending for task in request.tasks} & self._files.keys())
        if not tasks:
            return True
        _LOGGER.info("retraining %s", ", ".join(tasks))
        arguments = [*self._command, *(self._files[task] for task in tasks)]
        with subprocess.Popen(arguments, stdin=subprocess.DEVNULL) as process:  # noqa: S603
            self._process = process
            code = process.wait()
        self._process = None
        if self._stop.is_set():
            return False
        _LOGGER.info("retraining ended with exit code %d", code)
        if code not in (0, _TASK_FAILED) and not is_last:
            return False
        for request in pending:
            self._log.finish(request, code=code)
        return True
