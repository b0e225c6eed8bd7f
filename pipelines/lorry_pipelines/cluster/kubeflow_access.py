"""The address of Kubeflow Pipelines, and the credentials for it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lorry_components.process_setup import skip_iri_grammar
from lorry_registry.errors import ClusterError, UsageError
from lorry_registry.text.addresses import has_secret, hide_secrets


@dataclass(frozen=True, slots=True)
class KubeflowAccess:
    """Where Kubeflow Pipelines is, and as whom it is asked.

    Attributes:
        host: Its address, ``https://HOST/pipeline`` or ``http://HOST:PORT``.
        namespace: The namespace of a multi-user installation; empty for one without users.
        token: A bearer token.
        token_path: A file with a token that is renewed there, as a pod's service account has it.
        cookie: A cookie of a session, such as ``authservice_session=...``.
        ca_file: The certificates that the server's is checked by; None: those of public authorities.
    """

    host: str
    namespace: str = ""
    token: str = field(default="", repr=False)
    token_path: Path | None = None
    cookie: str = field(default="", repr=False)
    ca_file: Path | None = None


def check_host(host: str) -> None:
    """Refuse an address that is none, or that would put a password into links and logs.

    Raises:
        UsageError: It is such an address.
    """
    try:
        parts = urlsplit(host)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"{hide_secrets(host)!r} is not the address of Kubeflow Pipelines",
            where="--host",
            todo="write https://HOST/pipeline, or http://localhost:8080 after "
            "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80",
        )
    if has_secret(host):
        raise UsageError(
            f"{hide_secrets(host)} holds a password",
            where="--host",
            todo="leave it out, and set LORRY_KUBEFLOW_TOKEN or LORRY_KUBEFLOW_COOKIE",
        )


def open_client(access: KubeflowAccess) -> Any:
    """Return kfp's client; no request is sent yet.

    Raises:
        ClusterError: The file of a token or of certificates cannot be used.
    """
    skip_iri_grammar()
    import kfp
    from kfp.client import set_volume_credentials

    credentials = None
    if access.token_path is not None:
        credentials = set_volume_credentials.ServiceAccountTokenVolumeCredentials(str(access.token_path))
    try:
        with _quiet_client():
            return kfp.Client(
                host=access.host,
                # The client would ask for the namespace itself, without a time limit.
                namespace=access.namespace or "default",
                existing_token=access.token or None,
                credentials=credentials,
                cookies=access.cookie or None,
                ssl_ca_cert=str(access.ca_file) if access.ca_file else None,
            )
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"its client cannot be opened: {error}",
            where=access.host,
            todo="check the token's file and the file of certificates",
        ) from error


@contextlib.contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep what kfp prints and warns of while a client opens away from a machine's output."""
    import io
    import warnings

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
