"""What a process logs, and the traceback that ends it, show no secret; and it ends in order."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

SCRIPT = """
import logging, os, sys
from lorry_components.process_setup import conceal_secrets

conceal_secrets(os.environ)
conceal_secrets(os.environ)
logging.basicConfig(level=logging.INFO)
logging.getLogger("a.library").warning("retrying %s", os.environ["MLFLOW_TRACKING_URI"])
logging.getLogger("a.library").info("%d of %d", 3, 4)
try:
    raise OSError(os.environ["MLFLOW_TRACKING_URI"])
except OSError as error:
    logging.exception("it failed")
    raise ValueError(os.environ["HF_TOKEN"]) from error
"""


def test_a_process_shows_no_secret() -> None:
    environment = {
        **os.environ,
        "HF_TOKEN": "hf_planted",
        "MLFLOW_TRACKING_URI": "https://me:uri-planted@host/?token=query-planted",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "planted" not in done.stderr
    assert "WARNING:a.library:retrying https://***@host/?token=***" in done.stderr
    assert "INFO:a.library:3 of 4" in done.stderr
    assert done.stderr.count("OSError: https://***@host/?token=***") == 2
    assert done.stderr.rstrip().endswith("ValueError: ***")


LEAVING = """
import atexit, concurrent.futures, sys, threading, time
from lorry_components.process_setup import ease_garbage_collection, leave_process

class Big:
    def __del__(self):
        print("taken apart")

ease_garbage_collection()
atexit.register(print, "handler")
pool = concurrent.futures.ThreadPoolExecutor()
pool.submit(int).result()
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
big = Big()
print("work")
leave_process(int(sys.argv[1]))
"""


def _run_script(script: str, *arguments: str, stdout: int | IO[str] = subprocess.PIPE) -> Any:
    command = [sys.executable, "-c", script, *arguments]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, env=variables, text=True, check=False
    )


@pytest.mark.parametrize("code", [0, 12])
def test_a_process_is_left_after_its_threads_handlers_and_output(code: int) -> None:
    done = _run_script(LEAVING, str(code))
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.split() == ["work", "thread", "handler"]


def test_output_that_cannot_be_written_is_reported() -> None:
    script = "from lorry_components.process_setup import leave_process; print(1); leave_process(0)"
    with Path("/dev/full").open("w") as full:
        done = _run_script(script, stdout=full)
    assert done.returncode == 120
    assert "No space left on device" in done.stderr


def test_a_process_with_triton_prints_nothing_at_its_end() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    script = "from lorry_components import process_setup as s; s.ease_garbage_collection(); import triton"
    assert _run_script(script).stderr == ""
    assert _run_script(f"{script}; s.leave_process(0)").stderr == ""
