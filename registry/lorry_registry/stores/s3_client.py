"""The client of S3, for the store and for data alike.

Endpoint, region and credentials are boto3's to find, in the places that everybody knows:
``AWS_ENDPOINT_URL_S3``, ``AWS_DEFAULT_REGION``, ``AWS_PROFILE``, a web identity, and so on. boto3 also
chooses whether the bucket is part of the host name or of the path: of the path, if an endpoint is named,
unless the profile says ``addressing_style``. What boto3 takes from none of these is in :class:`S3Options`.
"""

import functools
import os
from dataclasses import dataclass
from typing import Any

from lorry_registry.errors import StoreError

CONNECTIONS = 16
"""How many connections a client keeps open, and so how many requests at once are worth while."""

_CONNECT_SECONDS, _READ_SECONDS = 5.0, 30.0


@dataclass(frozen=True, slots=True)
class S3Options:
    """Options of the store on S3 beyond boto3's own settings.

    Attributes:
        encryption: Encryption at rest, ``AES256`` or ``aws:kms``; "": the bucket's default.
        kms_key: The key for ``aws:kms``; "": the account's default key.
    """

    encryption: str = ""
    kms_key: str = ""

    def list_parameters(self) -> dict[str, str]:
        """Return the parameters that every write is sent with."""
        given = {"ServerSideEncryption": self.encryption, "SSEKMSKeyId": self.kms_key}
        return {name: value for name, value in given.items() if value}


def share_client() -> Any:
    """Return one client for all callers in this process, as long as boto3's variables stay the same.

    Making a client takes tens of milliseconds, most of them spent on parsing descriptions of AWS.
    """
    names = sorted(name for name in os.environ if name.startswith("AWS_") or name == "HOME")
    return _make_shared(tuple((name, os.environ[name]) for name in names))


@functools.lru_cache(maxsize=1)
def _make_shared(_environment: tuple[tuple[str, str], ...]) -> Any:
    return make_client()


def make_client(*, attempts: int | None = None, read_seconds: float | None = None) -> Any:
    """Make a boto3 client of S3; no request is sent yet.

    Args:
        attempts: How often boto3 sends a request; None: as its own settings say.
        read_seconds: How long an answer may take.

    Raises:
        botocore.exceptions.BotoCoreError: A profile or another of boto3's settings is wrong.
        StoreError: The endpoint's address holds credentials, which would end up in messages.
        ValueError: The endpoint is not an address.
    """
    import boto3
    from botocore.config import Config

    settings: dict[str, Any] = {
        "connect_timeout": _CONNECT_SECONDS,
        "read_timeout": read_seconds or _READ_SECONDS,
        "max_pool_connections": CONNECTIONS,
    }
    if attempts is not None:
        settings["retries"] = {"total_max_attempts": attempts}
    client = boto3.Session().client("s3", config=Config(**settings))
    if "@" in client.meta.endpoint_url:
        raise StoreError(
            "the address of the S3 endpoint holds credentials",
            where="AWS_ENDPOINT_URL_S3",
            todo="leave them out of it: boto3 takes them from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or from AWS_PROFILE",
        )
    return client
