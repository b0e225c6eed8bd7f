"""Does a server keep the conditions of a write? One that ignores them would lose updates without a word."""

import contextlib
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from lorry_registry.errors import StoreError
from lorry_registry.retries import RetryPolicy
from lorry_registry.stores.s3_errors import is_condition_failed, is_missing, is_transient

_LOGGER = logging.getLogger(__name__)
_TODO = "use one that has conditional writes, as AWS and SeaweedFS have, or a local folder"
_WRONG_TAG = f'"{"0" * 32}"'


def check_conditions(
    client: Any, bucket: str, folder: str, *, retries: RetryPolicy, parameters: Mapping[str, str]
) -> None:
    """Write a key of our own twice, and a third time under a wrong tag; only the first may be accepted.

    Args:
        client: The client.
        bucket: The bucket.
        folder: Where the key is made: "" or a prefix that ends in ``/``.
        retries: How often a request is sent again.
        parameters: What every write is sent with.

    Raises:
        botocore.exceptions.BotoCoreError: The server cannot be reached.
        botocore.exceptions.ClientError: The server refuses the first write.
        StoreError: The server ignores conditions.
    """
    # A hidden name, which no key of a store can have.
    place = {"Bucket": bucket, "Key": f"{folder}.lorry-check-{uuid.uuid4().hex}"}
    with _removing(client, place):

        def write(content: bytes, **condition: str) -> Callable[[], Any]:
            return lambda: client.put_object(**place, Body=content, **condition, **parameters)

        # After a lost answer the second attempt fails on the first one's key, which says as much.
        with contextlib.suppress(_ConditionFailed):
            _send(write(b"1", IfNoneMatch="*"), retries)
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": _WRONG_TAG}):
            with contextlib.suppress(_ConditionFailed):
                _send(write(b"2", **condition), retries)
                raise StoreError(
                    f"this server ignores {', '.join(condition)}: two writers would overwrite each other",
                    where=f"{client.meta.endpoint_url}, s3://{bucket}/{folder}",
                    todo=_TODO,
                )


def check_multipart_condition(
    client: Any, bucket: str, folder: str, *, retries: RetryPolicy, parameters: Mapping[str, str]
) -> None:
    """Complete an upload in parts over a key of our own, on the condition that there is no such key.

    Some servers keep the conditions of a single write and ignore this one. The arguments and errors are those
    of :func:`check_conditions`, to which this adds three requests before the first large file.
    """
    place = {"Bucket": bucket, "Key": f"{folder}.lorry-check-{uuid.uuid4().hex}"}
    with _removing(client, place):
        retries.call(lambda: client.put_object(**place, Body=b"1", **parameters), is_transient)
        started = retries.call(lambda: client.create_multipart_upload(**place, **parameters), is_transient)
        upload = {**place, "UploadId": started["UploadId"]}
        try:
            # The last part may be as small as it likes, and this is the only one.
            part = retries.call(lambda: client.upload_part(**upload, PartNumber=1, Body=b"2"), is_transient)
            parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
            with contextlib.suppress(_ConditionFailed):
                _send(
                    lambda: client.complete_multipart_upload(
                        **upload, MultipartUpload=parts, IfNoneMatch="*"
                    ),
                    retries,
                )
                raise StoreError(
                    "this server ignores IfNoneMatch at the end of an upload in parts: two writers would "
                    "overwrite each other's large files",
                    where=f"{client.meta.endpoint_url}, s3://{bucket}/{folder}",
                    todo=_TODO,
                )
        finally:
            # It is gone if the server completed it.
            with contextlib.suppress(BotoCoreError, ClientError):
                client.abort_multipart_upload(**upload)


class _ConditionFailed(Exception):  # noqa: N818 -- the answer that is hoped for
    pass


def _send(request: Callable[[], Any], retries: RetryPolicy) -> None:
    try:
        retries.call(request, is_transient)
    except ClientError as error:
        # AWS answers a write under a tag of a key that is gone with 404.
        if is_condition_failed(error) or is_missing(error):
            raise _ConditionFailed from error
        raise


@contextlib.contextmanager
def _removing(client: Any, place: Mapping[str, str]) -> Iterator[None]:
    try:
        yield
    finally:
        try:
            client.delete_object(**place)
        except Exception as error:  # noqa: BLE001 -- a policy may forbid removing; one hidden byte stays
            _LOGGER.warning("cannot remove %s: %s", place["Key"], type(error).__name__)
