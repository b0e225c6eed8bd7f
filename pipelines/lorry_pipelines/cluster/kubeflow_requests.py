"""Requests to an API that is sometimes away: questions are repeated, creations are looked up before that."""

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from lorry_registry.errors import ClusterError
from lorry_registry.retries import RetryPolicy
from lorry_registry.text.addresses import hide_secrets

_LOGGER = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")

# Seconds to connect, and from one byte of an answer to the next.
_TIMEOUT = (10.0, 60.0)
_MAX_PAGES = 1000
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_MAX_MESSAGE = 400


RETRIES = RetryPolicy(attempts=4)
"""How often a request that did not get an answer is repeated."""


class Requests:
    """Sends the requests of a generated client.

    Args:
        host: The address, for messages.
        retries: How often a request is repeated.
    """

    def __init__(self, host: str, retries: RetryPolicy) -> None:
        self._host = host
        self._retries = retries

    def list_pages(self, what: str, ask: Callable[..., Any]) -> Iterator[Any]:
        """Yield the pages of a list.

        Raises:
            ClusterError: A page cannot be had, or there is no last one.
        """
        token = ""
        for _ in range(_MAX_PAGES):
            page = self.ask(what, ask, page_token=token)
            yield page
            token = page.next_page_token or ""
            if not token:
                return
        raise ClusterError(f"its list of {what} does not end", where=self._host, todo="remove some in its UI")

    def ask(
        self, what: str, request: Callable[..., Any], *, may_be_gone: bool = False, **arguments: Any
    ) -> Any:
        """Ask what may be asked twice, and again when the server was away or too busy.

        Args:
            what: What it is about, for messages.
            request: The method of the generated client.
            may_be_gone: Whether an answer that there is no such thing is None and not an error.
            arguments: Its arguments; those that are None are left out.

        Raises:
            ClusterError: The server stays away, or refuses.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        failures = _list_failures()

        def report(error: Exception) -> None:
            _LOGGER.info("Kubeflow is asked again for %s: %s", what, _describe_failure(error))

        try:
            return self._retries.call(
                lambda: request(**given, _request_timeout=_TIMEOUT),
                lambda error: isinstance(error, failures) and _may_pass(error),
                report=report,
            )
        except failures as error:
            if may_be_gone and getattr(error, "status", None) == 404:
                return None
            raise self._explain(what, error) from error

    def create(
        self,
        what: str,
        create: Callable[..., Any],
        find: Callable[[], _Answer | None],
        read: Callable[[Any], _Answer],
    ) -> _Answer:
        """Create something once: when the answer is lost, or another was first, look before trying again.

        Args:
            what: What it is, for messages.
            create: Creates it, with the method of the generated client.
            find: Looks it up.
            read: Takes what ``find`` returns out of the answer to ``create``.

        Raises:
            ClusterError: The server stays away, or refuses.
        """
        failures = _list_failures()

        def create_or_find() -> _Answer:
            try:
                return read(create(_request_timeout=_TIMEOUT))
            except failures as error:
                if not _is_conflict(error) and not _may_pass(error):
                    raise
                _LOGGER.info("whether %s was created is looked up: %s", what, _describe_failure(error))
                made = find()
                if made is None:
                    raise
                return made

        try:
            return self._retries.call(
                create_or_find,
                lambda error: isinstance(error, failures) and not _is_conflict(error) and _may_pass(error),
            )
        except failures as error:
            raise self._explain(what, error) from error

    def _explain(self, what: str, error: Exception) -> ClusterError:
        return ClusterError(
            f"{what}: {_describe_failure(error)}",
            where=self._host,
            todo=_advise(getattr(error, "status", None), error),
        )


@functools.cache
def _list_failures() -> tuple[type[Exception], ...]:
    from kfp_server_api.exceptions import OpenApiException
    from urllib3.exceptions import HTTPError

    # The generated client raises ValueError for a field that is not as the API describes it.
    return (OpenApiException, HTTPError, OSError, ValueError)


def _is_conflict(error: Exception) -> bool:
    return getattr(error, "status", None) == 409


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed in a moment."""
    status = getattr(error, "status", None)
    if status is not None and status != 0:
        return status in _BUSY
    return not isinstance(error, ValueError) and "CERTIFICATE_VERIFY_FAILED" not in str(error)


def _describe_failure(error: Exception) -> str:
    status = getattr(error, "status", None)
    if not status:
        return f"{type(error).__name__}: {hide_secrets(str(error))}"[:_MAX_MESSAGE]
    message = getattr(error, "reason", "") or ""
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        document = json.loads(error.body)  # type: ignore[attr-defined]
        named = (document.get(key) for key in ("message", "error_message", "error"))
        message = next((text for text in named if text), message)
    return f"HTTP {status}: {message}"[:_MAX_MESSAGE]


def _advise(status: int | None, error: Exception) -> str:
    if status in (401, 403):
        return (
            "set LORRY_KUBEFLOW_TOKEN or LORRY_KUBEFLOW_COOKIE to one that is valid now and may use this "
            "namespace"
        )
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "name the file of your certificate authority with --ca-file or LORRY_KUBEFLOW_CA_FILE"
    if status == 404:
        return (
            "check that the address is that of Kubeflow Pipelines 2.17 or newer, often https://HOST/pipeline"
        )
    if status is not None and 400 <= status < 500 and status not in _BUSY:
        return "correct what it names and submit again"
    return "check that the address is right and the server is up, and submit again: nothing is started twice"
