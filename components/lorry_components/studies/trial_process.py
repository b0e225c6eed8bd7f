"""One trial in a process of its own: ``python -m lorry_components.studies.trial_process FOLDER``.

It has its own process so that its peak memory can be measured, a crash stops nothing else, and processors can
be divided. If its standard input is a pipe, it ends when that closes: the process that started it is gone.
"""

import logging
import os
import signal
import stat
import sys
import threading
from pathlib import Path

from lorry_components.process_setup import ease_garbage_collection, quiet_libraries
from lorry_components.progress import ProgressFile
from lorry_components.steps.runtime.outcomes import describe_failure
from lorry_components.studies.trials import TrialFolder

PROGRESS_NAME = "progress.json"
STEP = "cell"
_STDIN = 0
_LOGGER = logging.getLogger(__name__)


def main(path: Path) -> int:
    """Run the trial of a folder; return the exit code."""
    follow_starter()
    quiet_libraries()
    ease_garbage_collection()
    from lorry_components.studies.trial_run import run_trial

    folder = TrialFolder(path)
    progress = ProgressFile(path / PROGRESS_NAME, STEP)
    progress(0, 0)
    try:
        run_trial(folder, progress=progress)
    except Exception as error:
        _LOGGER.exception("the trial failed")
        failure = describe_failure(error, STEP)
        folder.write_failure(failure)
        return failure.exit_code
    return 0


def follow_starter() -> None:
    """End this process and its group when standard input is a pipe and closes."""
    if not stat.S_ISFIFO(os.fstat(_STDIN).st_mode):
        return
    lifeline = os.dup(_STDIN)
    os.dup2(os.open(os.devnull, os.O_RDONLY), _STDIN)

    def wait() -> None:
        os.read(lifeline, 1)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
