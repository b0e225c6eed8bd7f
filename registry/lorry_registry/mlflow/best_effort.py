"""MLflow is a window on the work: when it cannot be reached, the work goes on without it."""

import logging
from collections.abc import Callable

from lorry_registry.errors import LorryError

_LOGGER = logging.getLogger(__name__)


class BestEffort:
    """Calls to MLflow that never fail the work: the first failure gives a warning and ends the calls.

    MLflow tries for minutes to reach a server that is gone, so each further call would hold up the work.

    Args:
        loss: What is missing in MLflow after a failure, as a clause: ``MLflow does not show this study``.
        warn: Takes the warning; it goes to the log by default.
        todo: What sets MLflow right later, if anything does.
    """

    def __init__(self, loss: str, warn: Callable[[str], None] = _LOGGER.warning, *, todo: str = "") -> None:
        self._loss = loss
        self._warn = warn
        self._todo = todo
        self._has_failed = False

    def attempt(self, call: Callable[[], object]) -> None:
        """Make a call, unless one failed before.

        Only errors of Lorry's own tree are failures of MLflow; every other one is a defect, and is raised.
        """
        if self._has_failed:
            return
        try:
            call()
        except LorryError as error:
            self._has_failed = True
            remedy = f"\n  -> {self._todo}" if self._todo else ""
            self._warn(f"{self._loss}: {error}{remedy}")
