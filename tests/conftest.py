"""What all tests need of the process that runs them."""

import gc
import signal

import hypothesis
import pytest

from fixtures.browser import browser  # noqa: F401
from fixtures.kubeflow_server import kubeflow  # noqa: F401
from fixtures.kubernetes_server import kubernetes_server  # noqa: F401
from fixtures.s3_faults import faults  # noqa: F401
from fixtures.s3_server import list_objects, s3_address, s3_environment, s3_server, s3_store  # noqa: F401
from fixtures.signing import key_pairs, open_registry, ours, theirs  # noqa: F401
from fixtures.skips import summarize_skips
from fixtures.stack import direct_stack, make_stack, proxied_stack, use_stack  # noqa: F401
from fixtures.stores import empty_mlflow, mlflow_uri, registry, store, tracking  # noqa: F401

# A shell starts what runs in its background with Ctrl-C ignored, and children would inherit that: those
# of the tests that interrupt them would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Tests run side by side: how long an example takes says more about the others than about it.
hypothesis.settings.register_profile("side-by-side", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("side-by-side")


@pytest.fixture(autouse=True)
def spare_the_collector() -> None:
    """Take what is there already out of what a garbage collection looks at.

    Trainer asks for a full one in each training, and with torch and its companions imported that takes more
    time than all the rest of a tiny training.
    """
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Return frozen objects to the collector: nanobind (triton) reports them as leaked at the exit."""
    gc.unfreeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was skipped, and how to have it run."""
    skipped = terminalreporter.stats.get("skipped", ())
    line = summarize_skips(report.longrepr[-1] for report in skipped)
    if line:
        terminalreporter.write_line(f"skipped: {line}")
