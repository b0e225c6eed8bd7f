"""What all tests need of the process that runs them."""

import gc
import importlib
import logging
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.stores import empty_mlflow, mlflow_uri, registry, store  # noqa: F401

# A shell starts what runs in its background with Ctrl-C ignored, and children would inherit that: those
# of the tests that interrupt them would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def spare_the_collector() -> None:
    """Take what is there already out of what a garbage collection looks at.

    Trainer asks for a full one in each training, and with torch and its companions imported that takes more
    time than all the rest of a tiny training.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def tracking(tmp_path: Path) -> Iterator[str]:
    """Let plain ``mlflow`` use an MLflow of the test's own, and return its address."""
    import mlflow

    with warnings.catch_warnings():
        # MLflow 3.17 warns of its own type hints when it is imported.
        warnings.simplefilter("ignore")
        importlib.import_module("mlflow.pyfunc")
    before = mlflow.get_tracking_uri()
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before)
