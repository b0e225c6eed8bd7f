"""The time limits of MLflow's client, and the route of its files.

The client reads both from the environment alone, at each request; what the user set there counts.
"""

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_DATABASE_TIMEOUT = "PGCONNECT_TIMEOUT"
DIRECT_DOWNLOADS = "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD"
# Left to itself, the client takes files from the S3 address that the server knows, which may be reached from
# the server alone; it then tries for minutes. Adapters are small, and the server passes them on.
_THROUGH_SERVER = {DIRECT_DOWNLOADS: "false", "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false"}

_S3_SECONDS, _S3_ATTEMPTS = 5, 2


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How long a request may take.

    Attributes:
        seconds: How long the client waits for an answer.
        retries: How often it asks again, with growing pauses from the second time on.
    """

    seconds: int
    retries: int

    def list_variables(self) -> dict[str, str]:
        """Return the variables from which MLflow's client and its database driver read it."""
        seconds = str(self.seconds)
        return {_TIMEOUT: seconds, _RETRIES: str(self.retries), _DATABASE_TIMEOUT: seconds, **_THROUGH_SERVER}


STEADY = RequestLimits(seconds=10, retries=4)
"""For a training, which a restart of the server should not cut off from it: half a minute."""
BRIEF = RequestLimits(seconds=10, retries=1)
"""For a command that a person waits for, and for a registration, which can be repeated."""
PROBING = RequestLimits(seconds=5, retries=1)
"""For the question whether a server is there."""


class ClientVariables:
    """Variables that are set while a request is made, unless the user set them."""

    def __init__(self) -> None:
        self._own: set[str] = set()

    @contextlib.contextmanager
    def set(self, variables: Mapping[str, str]) -> Iterator[None]:
        """Set variables for a block of code; those of an inner block count."""
        chosen = {
            name: value for name, value in variables.items() if name in self._own or name not in os.environ
        }
        before = {name: os.environ[name] for name in chosen if name in os.environ}
        new = chosen.keys() - self._own
        self._own |= new
        os.environ.update(chosen)
        try:
            yield
        finally:
            self._own -= new
            for name in chosen.keys() - before.keys():
                os.environ.pop(name, None)
            os.environ.update(before)


def wants_direct_downloads() -> bool:
    """Return whether the user wants files to be fetched from the S3 address that the server knows."""
    return os.environ.get(DIRECT_DOWNLOADS, "").lower() in ("true", "1")


@functools.cache
def limit_s3() -> None:
    """Let MLflow's own client of S3, where artifacts do not go through the server, give up after seconds.

    It waits for a minute for each of five attempts, and takes settings of time from botocore's session alone.
    """
    import boto3
    from botocore.config import Config
    from botocore.session import get_session

    session = get_session()
    limits = Config(
        connect_timeout=_S3_SECONDS,
        read_timeout=_S3_SECONDS,
        retries={"total_max_attempts": _S3_ATTEMPTS},
    )
    session.set_default_client_config(limits)
    if boto3.DEFAULT_SESSION is None:
        boto3.setup_default_session(botocore_session=session)
