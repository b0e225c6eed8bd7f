"""A store on S3, or on a server that speaks its protocol and keeps its conditions.

A key is created with ``If-None-Match: *`` and swapped with ``If-Match: ETag``. Requests that may succeed a
moment later are sent again. An answer can be lost after the write, so a failed condition is looked into
before it is believed: a key that was created holds the content, and one that was swapped carries the
writer's token.

Files go in and come out in pieces; the memory that takes does not depend on their size. A writer that is
killed in the middle of a large file leaves an unfinished multipart upload, which cannot be read and which
a lifecycle rule of the bucket (``AbortIncompleteMultipartUpload``) removes.
"""

import contextlib
import functools
import hashlib
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from lorry_registry.errors import ConflictError, NotFoundError, StoreError
from lorry_registry.files.atomic_write import whole_file
from lorry_registry.files.digests import digest_bytes, digest_file
from lorry_registry.retries import RetryPolicy
from lorry_registry.stores.base import (
    MAX_DOCUMENT_BYTES,
    Store,
    StoredDocument,
    StoredEntry,
    UnfinishedWrite,
    check_key,
    refuse_large,
)
from lorry_registry.stores.s3_client import CONNECTIONS, S3Options, make_client
from lorry_registry.stores.s3_conditions import check_conditions, check_multipart_condition
from lorry_registry.stores.s3_errors import (
    explain_error,
    find_code,
    find_status,
    is_condition_failed,
    is_missing,
    is_transient,
)
from lorry_registry.stores.s3_upkeep import delete_objects, list_uploads

_T = TypeVar("_T")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CHUNK_BYTES = 1 << 20
_PART_BYTES = 16 << 20
_MAX_PARTS = 10_000
_PAGE_KEYS = 1000
_UPLOAD_ATTEMPTS = 3
RETRIES = RetryPolicy(attempts=7, first_seconds=0.2, longest_seconds=5.0)
"""How often a request is sent again, unless a store has a policy of its own."""

_TOKEN = "lorry-write"  # noqa: S105 -- the name of a field
_LIST_UPLOADS, _ABORT = "s3:ListBucketMultipartUploads", "s3:AbortMultipartUpload"
_GET, _PUT, _LIST, _DELETE = "s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:DeleteObject"


class S3Store(Store):
    """A store below a prefix of a bucket, safe for any number of writers.

    Args:
        address: ``s3://bucket`` or ``s3://bucket/prefix``.
        options: What boto3 does not find by itself.
        retries: How often a request is sent again.
        read_seconds: How long an answer may take; None: as the client has it.

    Raises:
        StoreError: The address names no bucket, or a prefix that is not a key.
    """

    concurrency: ClassVar[int] = CONNECTIONS

    def __init__(
        self,
        address: str,
        options: S3Options | None = None,
        *,
        retries: RetryPolicy | None = None,
        read_seconds: float | None = None,
    ) -> None:
        self.bucket, prefix = _split_address(address)
        self.address = f"s3://{self.bucket}/{prefix}".rstrip("/")
        self._folder = f"{prefix}/" if prefix else ""
        self._options = options or S3Options()
        self._retries = retries or RETRIES
        self._read_seconds = read_seconds
        self._keeps_conditions = False
        self._keeps_multipart_condition = False

    # Reading

    def read(self, key: str) -> StoredDocument | None:
        """Return the content of a key; its tag is its ETag."""

        def take(answer: Any) -> StoredDocument:
            if answer["ContentLength"] > MAX_DOCUMENT_BYTES:
                refuse_large(self.locate(key))
            return StoredDocument(answer["Body"].read(), answer["ETag"])

        return self._fetch(key, take)

    def digest_key(self, key: str) -> str | None:
        """Return the digest of what S3 gives back, which is read in small pieces."""

        def take(answer: Any) -> str:
            digest = hashlib.sha256()
            while chunk := answer["Body"].read(_CHUNK_BYTES):
                digest.update(chunk)
            return f"sha256:{digest.hexdigest()}"

        return self._fetch(key, take)

    def download(self, key: str, target: Path) -> None:
        """Write a key to a file in small pieces; the file appears whole."""
        try:
            with whole_file(target) as partial:

                def take(answer: Any) -> bool:
                    with partial.open("wb") as stream:
                        while chunk := answer["Body"].read(_CHUNK_BYTES):
                            stream.write(chunk)
                    return True

                if self._fetch(key, take) is None:
                    raise NotFoundError(
                        "there is no such key in the store",
                        where=self.locate(key),
                        todo="check that LORRY_STORE names the right store, or restore it from a backup",
                    )
        except OSError as error:
            raise StoreError(
                f"cannot be written: {error.strerror or error}",
                where=str(target),
                todo="check that the disk has space and that this user may write there",
            ) from error

    def list_entries(self, prefix: str) -> Iterator[StoredEntry]:
        """Yield every key below a prefix, a page at a time."""
        base = f"{self._folder}{check_key(prefix)}/"
        for page in self._list_pages(prefix, base):
            for entry in page.get("Contents", ()):
                name = entry["Key"].removeprefix(base)
                if _is_visible(name):
                    yield StoredEntry(f"{prefix}/{name}", entry["Size"], entry["LastModified"])

    def list_unfinished(self, prefixes: Sequence[str]) -> Iterator[UnfinishedWrite]:
        """Yield uploads in parts that were not completed, with the bytes of the parts that arrived."""
        for prefix in prefixes:
            base = f"{self._folder}{check_key(prefix)}/"
            with self._reporting("list", prefix, _LIST_UPLOADS):
                uploads = self._send(functools.partial(list_uploads, self._client, self.bucket, base))
            for upload in uploads:
                name = f"{upload.key.removeprefix(self._folder)}?uploadId={upload.upload_id}"
                yield UnfinishedWrite(name, upload.size, upload.started)

    def remove_unfinished(self, write: UnfinishedWrite) -> None:
        """Abort an upload in parts."""
        key, _, upload_id = write.name.partition("?uploadId=")
        place = {**self._place(check_key(key)), "UploadId": upload_id}
        with self._reporting("delete", key, _ABORT):
            try:
                self._send(lambda: self._client.abort_multipart_upload(**place))
            except ClientError as error:
                if not is_missing(error) and find_code(error) != "NoSuchUpload":
                    raise

    def read_clock(self) -> datetime:
        """Return the time that S3 writes into its answers; this machine's if it writes none."""
        with self._reporting("list", "", _LIST):
            answer = self._send(
                lambda: self._client.list_objects_v2(Bucket=self.bucket, Prefix=self._folder, MaxKeys=1)
            )
        dated = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
        return parsedate_to_datetime(dated).astimezone(UTC) if dated else datetime.now(UTC)

    def list_keys(self, prefix: str) -> Iterator[str]:
        """Yield every key below a prefix, sorted: servers differ in their order, and some keep none."""
        base = f"{self._folder}{check_key(prefix)}/"
        names = [
            entry["Key"].removeprefix(base)
            for page in self._list_pages(prefix, base)
            for entry in page.get("Contents", ())
        ]
        for name in sorted(filter(_is_visible, names), key=lambda name: name.split("/")):
            yield f"{prefix}/{name}"

    def list_children(self, prefix: str) -> list[str]:
        """Return the names directly below a prefix, sorted."""
        base = f"{self._folder}{check_key(prefix)}/"
        names: set[str] = set()
        for page in self._list_pages(prefix, base, Delimiter="/"):
            names.update(entry["Key"].removeprefix(base) for entry in page.get("Contents", ()))
            names.update(
                entry["Prefix"].removeprefix(base).rstrip("/") for entry in page.get("CommonPrefixes", ())
            )
        return sorted(name for name in names if _is_visible(name))

    def locate(self, key: str) -> str:
        """Return an ``s3://`` address."""
        return f"{self.address}/{check_key(key)}"

    def find_path(self, key: str) -> Path | None:
        """Return None: nothing of it is on this machine."""
        check_key(key)
        return None

    # Writing

    def create(self, key: str, content: bytes) -> None:
        """Write a new key under the condition that it does not exist."""
        check_key(key)
        self._ensure_conditions()
        with self._reporting("write", key, _PUT):
            try:
                self._send(lambda: self._put(key, content, IfNoneMatch="*"))
            except ClientError as error:
                if not is_condition_failed(error):
                    raise
                self._accept_existing(key, digest_bytes(content), error)

    def compare_and_swap(self, key: str, content: bytes, expected: str | None) -> str:
        """Replace a key under the condition that it has the expected ETag, or that it does not exist."""
        check_key(key)
        self._ensure_conditions()
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        token = uuid.uuid4().hex
        with self._reporting("write", key, _PUT):
            try:
                return self._send(lambda: self._put(key, content, Metadata={_TOKEN: token}, **condition))
            except ClientError as error:
                # AWS answers 404 when the key under the condition is gone.
                if not is_condition_failed(error) and not (expected is not None and is_missing(error)):
                    raise
                tag = self._find_own_write(key, token)
                if tag is not None:
                    return tag
                raise ConflictError(
                    "it was changed by another writer since it was read",
                    where=self.locate(key),
                    todo="look at the present state and try again",
                ) from error

    def overwrite(self, key: str, content: bytes) -> None:
        """Write a key in one request without a condition: no other process writes it."""
        check_key(key)
        with self._reporting("write", key, _PUT):
            self._send(lambda: self._put(key, content))

    def upload(self, key: str, source: Path) -> None:
        """Create a key from a file: a small one in one request, a large one in parts."""
        check_key(key)
        self._ensure_conditions()
        with self._reporting("write", key, _PUT):
            try:
                size = source.stat().st_size
                if size > _PART_BYTES:
                    self._upload_parts(key, source, size)
                else:
                    self._send(lambda: self._put_file(key, source))
            except BotoCoreError:
                # Some of them are OSErrors, too, and concern S3 and not the file.
                raise
            except OSError as error:
                raise StoreError(
                    f"cannot be read: {error.strerror or error}",
                    where=str(source),
                    todo="check that the file is there and that this user may read it",
                ) from error
            except ClientError as error:
                if not is_condition_failed(error):
                    raise
                self._accept_existing(key, digest_file(source), error)

    def delete(self, key: str) -> None:
        """Remove a key. In a bucket with versions S3 keeps it as an old version."""
        check_key(key)
        with self._reporting("delete", key, _DELETE):
            try:
                self._send(lambda: self._client.delete_object(**self._place(key)))
            except ClientError as error:
                # AWS answers a missing key with success, other servers with 404.
                if not is_missing(error):
                    raise

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove a thousand keys in a request."""
        for start in range(0, len(keys), _PAGE_KEYS):
            names = [self._folder + check_key(key) for key in keys[start : start + _PAGE_KEYS]]
            with self._reporting("delete", "", _DELETE):
                self._send(functools.partial(delete_objects, self._client, self.bucket, names))

    def check_writable(self) -> None:
        """Write and remove a key of its own, under conditions that the server must keep."""
        with self._reporting("write", "", _PUT):
            check_conditions(
                self._client, self.bucket, self._folder, retries=self._retries, parameters=self._encryption
            )
            self._keeps_conditions = True

    # Requests

    @functools.cached_property
    def _client(self) -> Any:
        # Requests are repeated here alone: only so is it known that an answer may have been lost.
        return make_client(attempts=1, read_seconds=self._read_seconds)

    @property
    def _encryption(self) -> dict[str, str]:
        return self._options.list_parameters()

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self._folder + key}

    def _send(self, request: Callable[[], _T]) -> _T:
        return self._retries.call(request, is_transient)

    def _ensure_conditions(self) -> None:
        if not self._keeps_conditions:
            self.check_writable()

    def _ensure_multipart_condition(self) -> None:
        if not self._keeps_multipart_condition:
            check_multipart_condition(
                self._client, self.bucket, self._folder, retries=self._retries, parameters=self._encryption
            )
            self._keeps_multipart_condition = True

    def _fetch(self, key: str, take: Callable[[Any], _T]) -> _T | None:
        """Send a GET and let ``take`` read the answer; both again when the connection breaks."""
        check_key(key)

        def request() -> _T:
            answer = self._client.get_object(**self._place(key))
            with contextlib.closing(answer["Body"]):
                return take(answer)

        with self._reporting("read", key, _GET):
            try:
                return self._send(request)
            except ClientError as error:
                if is_missing(error):
                    return None
                raise

    def _list_pages(self, prefix: str, base: str, **parameters: str) -> Iterator[dict[str, Any]]:
        given: dict[str, Any] = {"Bucket": self.bucket, "Prefix": base, "MaxKeys": _PAGE_KEYS, **parameters}
        while True:
            with self._reporting("list", prefix, _LIST):
                page = self._send(functools.partial(self._client.list_objects_v2, **given))
            yield page
            if not page.get("IsTruncated"):
                return
            given = {**given, "ContinuationToken": page["NextContinuationToken"]}

    def _put(self, key: str, content: bytes, **parameters: Any) -> str:
        answer = self._client.put_object(
            **self._place(key), Body=content, ChecksumAlgorithm="SHA256", **parameters, **self._encryption
        )
        return str(answer["ETag"])

    def _put_file(self, key: str, source: Path) -> None:
        with source.open("rb") as stream:
            self._client.put_object(
                **self._place(key),
                Body=stream,
                ChecksumAlgorithm="SHA256",
                IfNoneMatch="*",
                **self._encryption,
            )

    def _upload_parts(self, key: str, source: Path, size: int) -> None:
        """Upload a large file, from its start again when another upload gets in the way."""
        for attempt in range(1, _UPLOAD_ATTEMPTS + 1):
            if self._has_key(key):
                # Gigabytes are not sent only to learn that they are there.
                self._require_content(key, digest_file(source))
                return
            self._ensure_multipart_condition()
            try:
                self._upload_parts_once(key, source, size)
            except ClientError as error:
                # Another upload of this key was completed in between, or this one already was and its
                # answer was lost: what is there now decides.
                if attempt == _UPLOAD_ATTEMPTS or not _is_overtaken(error):
                    raise
            else:
                return

    def _upload_parts_once(self, key: str, source: Path, size: int) -> None:
        place, part_bytes = self._place(key), max(_PART_BYTES, -(-size // _MAX_PARTS))
        started = self._send(
            lambda: self._client.create_multipart_upload(
                **place, ChecksumAlgorithm="SHA256", **self._encryption
            )
        )
        place["UploadId"] = started["UploadId"]
        with self._aborting(place):
            parts: list[dict[str, Any]] = []
            with source.open("rb") as stream:
                while content := stream.read(part_bytes):
                    parts.append(self._upload_part(place, len(parts) + 1, content))
            self._send(
                lambda: self._client.complete_multipart_upload(
                    **place, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
                )
            )

    def _upload_part(self, place: dict[str, str], number: int, content: bytes) -> dict[str, Any]:
        answer = self._send(
            lambda: self._client.upload_part(
                **place, PartNumber=number, Body=content, ChecksumAlgorithm="SHA256"
            )
        )
        return {
            "PartNumber": number,
            **{name: answer[name] for name in ("ETag", "ChecksumSHA256") if name in answer},
        }

    @contextlib.contextmanager
    def _aborting(self, place: dict[str, str]) -> Iterator[None]:
        try:
            yield
        except BaseException:
            # An error here has the same cause as the one that is being reported already.
            with contextlib.suppress(BotoCoreError, ClientError):
                self._client.abort_multipart_upload(**place)
            raise

    def _has_key(self, key: str) -> bool:
        return self._head(key) is not None

    def _head(self, key: str) -> Any:
        try:
            return self._send(lambda: self._client.head_object(**self._place(key)))
        except ClientError as error:
            if is_missing(error):
                return None
            raise

    def _find_own_write(self, key: str, token: str) -> str | None:
        """Return the tag of a key if it is this writer's: the write came through, its answer did not."""
        head = self._head(key)
        return str(head["ETag"]) if head and head.get("Metadata", {}).get(_TOKEN) == token else None

    def _accept_existing(self, key: str, digest: str, error: ClientError) -> None:
        try:
            self._require_content(key, digest)
        except ConflictError as conflict:
            raise conflict from error

    def _require_content(self, key: str, digest: str) -> None:
        if self.digest_key(key) != digest:
            raise ConflictError("it exists with other content", where=self.locate(key))

    @contextlib.contextmanager
    def _reporting(self, verb: str, key: str, action: str) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError, ValueError) as error:
            client = self.__dict__.get("_client")
            endpoint = client.meta.endpoint_url if client else "S3"
            where = f"{self.address}/{key}" if key else self.address
            explained = explain_error(error, verb=verb, action=action, where=where, endpoint=endpoint)
            # A traceback shows the cause, which may quote an endpoint with its password.
            raise explained from (None if "@" in str(error) else error)


def _split_address(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    prefix = parts.path.strip("/")
    if parts.query or parts.fragment or "@" in parts.netloc or not _BUCKET.fullmatch(parts.netloc):
        raise StoreError(
            "not the address of a bucket" + (", and no place for credentials" if "@" in parts.netloc else ""),
            where=f"s3://{parts.netloc.rpartition('@')[2]}/{prefix}",
            todo="set LORRY_STORE to s3://bucket or s3://bucket/prefix",
        )
    if prefix:
        try:
            check_key(prefix)
        except StoreError as error:
            where, todo = f"s3://{parts.netloc}/{prefix}", "correct the prefix in LORRY_STORE"
            raise StoreError(error.what, where=where, todo=todo) from error
    return parts.netloc, prefix


def _is_overtaken(error: ClientError) -> bool:
    return find_status(error) == 409 or find_code(error) == "NoSuchUpload"


def _is_visible(name: str) -> bool:
    """Return whether a name below a prefix is a key's: no marker of a folder, and nothing hidden."""
    return all(part and part[0] != "." for part in name.split("/"))
