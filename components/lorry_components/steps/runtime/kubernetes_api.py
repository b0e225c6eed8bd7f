"""Kubernetes' REST API: questions are repeated while the server is away, answers are plain documents.

The client's own classes are left out: they differ between its versions, and know no custom resources.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lorry_registry.errors import ClusterError, MissingExtraError
from lorry_registry.retries import RetryPolicy
from lorry_registry.text.addresses import hide_secrets

_LOGGER = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")

# Seconds to connect, and from one byte of an answer to the next.
TIMEOUT = (10.0, 60.0)
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_RETRIES = RetryPolicy(seconds=600.0, jitter=0.0)
_MAX_MESSAGE = 600
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_NOT_FOUND, _CONFLICT = 404, 409
_ADVICE = {
    401: "log in again: the account's token is not valid, or no longer",
    403: "give the account the right that is named; infra/k8s/components/trainer has those that steps need",
    _NOT_FOUND: "check the name and the namespace, and that the part of Kubeflow that serves it is installed",
}


class KubernetesApi:
    """One cluster, as the account of a kubeconfig or of this pod sees it.

    Args:
        client: A ``kubernetes.client.ApiClient``.
        namespace: The namespace that is meant where none is named.
        retries: For how long requests are repeated.
    """

    def __init__(self, client: Any, namespace: str, retries: RetryPolicy | None = None) -> None:
        self.client = client
        self.namespace = namespace
        self._retries = retries or _RETRIES

    @classmethod
    def open(cls, namespace: str = "", retries: RetryPolicy | None = None) -> "KubernetesApi":
        """Open the cluster that this process is in, or else the one of its kubeconfig.

        Args:
            namespace: The namespace; empty: that of the pod, or of the kubeconfig's context.
            retries: For how long requests are repeated.

        Raises:
            ClusterError: There is neither.
            MissingExtraError: The client is not installed.
        """
        try:
            from kubernetes import client, config
        except ImportError as error:
            raise MissingExtraError(
                "the client of Kubernetes is not installed",
                where="kubernetes",
                todo="pip install 'lorry[pipelines]', or take an image that has it",
            ) from error
        configuration = client.Configuration()
        try:
            if (_ACCOUNT / "token").is_file():
                config.load_incluster_config(client_configuration=configuration)
                found = (_ACCOUNT / "namespace").read_text("utf-8").strip()
            else:
                config.load_kube_config(client_configuration=configuration)
                _, active = config.list_kube_config_contexts()
                found = active["context"].get("namespace", "default")
        except (config.ConfigException, OSError, KeyError, TypeError) as error:
            raise ClusterError(
                f"no cluster is named: {error}",
                where="Kubernetes",
                todo="run kubectl config current-context, or set KUBECONFIG to the cluster's file",
            ) from error
        # Repetitions are ours, with their own limit.
        configuration.retries = False
        return cls(client.ApiClient(configuration), namespace or found, retries)

    @property
    def host(self) -> str:
        """The server's address, without secrets."""
        return hide_secrets(str(self.client.configuration.host))

    def read(self, path: str, **query: str) -> dict[str, Any]:
        """Return what is at a path.

        Raises:
            ClusterError: It is not there, may not be read, or the server stays away.
        """
        found = self.find(path, **query)
        if found is None:
            raise ClusterError("there is no such thing", where=f"{self.host}{path}", todo=_advise(_NOT_FOUND))
        return found

    def find(self, path: str, **query: str) -> dict[str, Any] | None:
        """Return what is at a path; None: nothing is.

        Raises:
            ClusterError: It may not be read, or the server stays away.
        """
        text = self.repeat(path, lambda: self._send("GET", path, query))
        return None if text is None else dict(_parse(text, f"{self.host}{path}"))

    def read_text(self, path: str, **query: str) -> str:
        """Return a text, such as a pod's log; empty if there is none.

        Raises:
            ClusterError: It may not be read, or the server stays away.
        """
        return self.repeat(path, lambda: self._send("GET", path, query)) or ""

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Create something; None: the cluster does not know this kind of thing.

        A request whose answer was lost is repeated, and is a conflict then: see :func:`is_conflict`.

        Raises:
            ClusterError: It is refused, or the server stays away.
        """
        text = self.repeat(path, lambda: self._send("POST", path, {}, body))
        return None if text is None else dict(_parse(text, f"{self.host}{path}"))

    def delete(self, path: str) -> None:
        """Delete what is at a path, with all that belongs to it; what is gone already is no error.

        Raises:
            ClusterError: It may not be deleted, or the server stays away.
        """
        self.repeat(path, lambda: self._send("DELETE", path, {"propagationPolicy": "Background"}))

    def repeat(self, what: str, request: Callable[[], _Answer]) -> _Answer | None:
        """Send a request until it is answered; None: there is no such thing.

        Args:
            what: What it is about, for messages.
            request: Sends it once.

        Raises:
            ClusterError: It is refused, or the server stays away.
        """
        failures = _list_failures()

        def may_pass(error: Exception) -> bool:
            return isinstance(error, failures) and _may_pass(find_status(error), error)

        def report(error: Exception) -> None:
            _LOGGER.info("Kubernetes is asked again: %s", describe_failure(error))

        try:
            return self._retries.call(request, may_pass, report=report)
        except failures as error:
            if find_status(error) == _NOT_FOUND:
                return None
            raise explain_failure(f"{self.host}{what}", error) from error

    def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None = None
    ) -> str:
        answer = self.client.call_api(
            path,
            method,
            query_params=list(query.items()),
            header_params={"Accept": "application/json, */*", "Content-Type": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=TIMEOUT,
        )
        return bytes(answer.data).decode("utf-8", "replace")


def find_status(error: BaseException) -> int | None:
    """Return the HTTP status of a refusal, or of the one that it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        status = getattr(cause, "status", None)
        if isinstance(status, int) and status:
            return status
        cause = cause.__cause__
    return None


def is_conflict(error: BaseException) -> bool:
    """Return whether something of this name is there already."""
    return find_status(error) == _CONFLICT


def describe_failure(error: BaseException) -> str:
    """Return why a request failed, in the server's own words where it has any."""
    while getattr(error, "status", None) is None and error.__cause__ is not None:
        error = error.__cause__
    status = getattr(error, "status", None)
    if not status:
        return f"{type(error).__name__}: {hide_secrets(str(error))}"[:_MAX_MESSAGE]
    message = str(getattr(error, "reason", "") or "")
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        message = json.loads(error.body)["message"] or message  # type: ignore[attr-defined]
    return f"HTTP {status}: {message}"[:_MAX_MESSAGE]


def explain_failure(where: str, error: BaseException) -> ClusterError:
    """Return an error that says what to do about a failed request."""
    message = describe_failure(error)
    return ClusterError(message, where=where, todo=_advise(find_status(error), message))


def _list_failures() -> tuple[type[Exception], ...]:
    from kubernetes.client.exceptions import OpenApiException
    from urllib3.exceptions import HTTPError

    return (OpenApiException, HTTPError, OSError)


def _may_pass(status: int | None, error: BaseException) -> bool:
    """Whether the same request may succeed in a moment."""
    if status is not None:
        return status in _BUSY
    return "CERTIFICATE_VERIFY_FAILED" not in str(error)


def _advise(status: int | None, message: str = "") -> str:
    if "CERTIFICATE_VERIFY_FAILED" in message:
        return "name the cluster's certificate authority in the kubeconfig"
    if "exceeded quota" in message:
        return "wait until others have ended, ask for less, or raise the namespace's ResourceQuota"
    if status in _ADVICE:
        return _ADVICE[status]
    if status is not None and 400 <= status < 500 and status not in _BUSY:
        return "correct what it names and run it again"
    return "check that the API server is up and reachable from here, and run it again"


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ClusterError(
            "it does not answer as Kubernetes does", where=where, todo="check the server's address"
        )
    return document
