"""What a process logs, and the traceback that ends it, show no secret."""

import os
import subprocess
import sys

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
