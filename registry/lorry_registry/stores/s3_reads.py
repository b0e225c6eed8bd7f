"""Reading many small objects with little work.

boto3 takes more than a millisecond of processor time for a GET, all threads of a process together, so that a
thousand of them take more than a second however near the server is. Signing a request and sending it takes
less than half of that. Only an answer that is whole and plain is taken from here: redirects, refusals, broken
connections and everything else are boto3's, which is asked again.
"""

import base64
import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from typing import Any

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from lorry_registry.stores.base import MAX_DOCUMENT_BYTES, StoredDocument
from lorry_registry.stores.s3_client import CONNECTIONS, S3Connection

_CHECKSUM = "x-amz-checksum-"
_SIGNED = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/([a-z0-9-]+)/s3/aws4_request,")


class PlainReader:
    """Sends signed GETs as a client of boto3's does, as soon as that has sent one to learn from.

    It gives up for good when one is not answered as expected.

    Args:
        connection: The client, and where it has its credentials from.
        folder: What every key begins with in the bucket.
    """

    def __init__(self, connection: S3Connection, folder: str) -> None:
        self._credentials = connection.session.get_credentials()
        self._folder = folder
        self._http = URLLib3Session(
            verify=connection.session.get_config_variable("ca_bundle") or True,
            proxies=get_environ_proxies(connection.client.meta.endpoint_url),
            timeout=connection.timeouts,
            max_pool_connections=CONNECTIONS,
        )
        self._asked = threading.local()
        self._address = self._region = ""
        self._is_usable = self._credentials is not None
        connection.client.meta.events.register("before-send.s3.GetObject", self._learn)

    def read(self, key: str) -> StoredDocument | None:
        """Return the content of a key with its ETag; None: boto3 has to be asked.

        Args:
            key: A key below the folder, of characters that an address shows as they are.
        """
        if not self._is_usable or not self._address:
            return None
        try:
            answer = self._send(key)
            headers = answer.headers
            if int(headers.get("Content-Length", 0)) > MAX_DOCUMENT_BYTES:
                # boto3 refuses it.
                answer.raw.close()
                return None
            content = answer.content
        except (BotoCoreError, OSError, ValueError):
            self._is_usable = False
            return None
        if answer.status_code == 200 and "ETag" in headers and _is_whole(content, headers):
            return StoredDocument(content, headers["ETag"])
        # boto3 tells a missing key from a missing bucket.
        self._is_usable = answer.status_code == 404
        return None

    def _send(self, key: str) -> Any:
        request = AWSRequest(
            "GET", self._address + key, headers={f"{_CHECKSUM}mode": "ENABLED"}, stream_output=True
        )
        # Credentials of a role are renewed in here when they are about to expire.
        frozen = self._credentials.get_frozen_credentials()
        S3SigV4Auth(frozen, "s3", self._region).add_auth(request)
        return self._http.send(request.prepare())

    @contextlib.contextmanager
    def learning(self, key: str) -> Iterator[None]:
        """Learn from the GET of a key that boto3 sends in this context: where to, and for which region.

        A bucket may be anywhere, and only boto3 knows all the ways to find it.
        """
        self._asked.key = key
        try:
            yield
        finally:
            self._asked.key = None

    def _learn(self, request: Any, **_: object) -> None:
        key = getattr(self._asked, "key", None)
        signed = _SIGNED.match(_decode(request.headers.get("Authorization", "")))
        if key and signed and request.url.endswith(f"/{self._folder}{key}"):
            self._region, self._address = signed[1], request.url.removesuffix(key)


def _decode(header: str | bytes) -> str:
    return header.decode("latin-1") if isinstance(header, bytes) else header


def _is_whole(content: bytes, headers: Any) -> bool:
    """Return whether an answer carries what the server says that it stored, as far as it says it.

    A checksum of another kind is left to boto3, which knows them all.
    """
    kinds = {name.lower() for name in headers if name.lower().startswith(_CHECKSUM)}
    given = headers.get(f"{_CHECKSUM}sha256")
    if given is not None:
        return bool(given == base64.b64encode(hashlib.sha256(content).digest()).decode())
    return kinds <= {f"{_CHECKSUM}type"} and headers.get("Content-Length") == str(len(content))
