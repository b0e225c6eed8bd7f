"""Requests that only upkeep needs: many keys removed at once, and uploads that were never completed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from lorry_registry.stores.s3_errors import is_missing

_OPERATION = "DeleteObjects"


@dataclass(frozen=True, slots=True)
class PartialUpload:
    """An upload in parts: for which key, since when, and the bytes of its parts."""

    key: str
    upload_id: str
    started: datetime
    size: int


def delete_objects(client: Any, bucket: str, names: Sequence[str]) -> None:
    """Remove objects in one request.

    Raises:
        botocore.exceptions.ClientError: The request was refused, or one of the objects could not be removed:
            the server says so for each, and the first one is raised as if it had been asked for alone.
    """
    wanted = {"Objects": [{"Key": name} for name in names], "Quiet": True}
    answer = client.delete_objects(Bucket=bucket, Delete=wanted)
    for problem in answer.get("Errors", ()):
        error = ClientError(
            {"Error": {"Code": problem.get("Code", ""), "Message": problem.get("Message", "")}}, _OPERATION
        )
        if not is_missing(error):
            raise error


def list_uploads(client: Any, bucket: str, prefix: str) -> list[PartialUpload]:
    """Return the uploads in parts below a prefix that were begun and neither completed nor aborted.

    Raises:
        botocore.exceptions.BotoCoreError: The server cannot be reached.
        botocore.exceptions.ClientError: The server refuses.
    """
    return [
        PartialUpload(
            entry["Key"], entry["UploadId"], entry["Initiated"], _measure_parts(client, bucket, entry)
        )
        for entry in _list_entries(client, bucket, prefix)
    ]


def _list_entries(client: Any, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    given = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = client.list_multipart_uploads(**given)
        # A server that knows no prefix here lists them all.
        yield from (entry for entry in page.get("Uploads", ()) if entry["Key"].startswith(prefix))
        if not page.get("IsTruncated"):
            return
        given |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def _measure_parts(client: Any, bucket: str, entry: dict[str, Any]) -> int:
    given: dict[str, Any] = {"Bucket": bucket, "Key": entry["Key"], "UploadId": entry["UploadId"]}
    size = 0
    while True:
        try:
            page = client.list_parts(**given)
        except ClientError as error:
            # It was completed or aborted since it was listed.
            if error.response.get("Error", {}).get("Code") == "NoSuchUpload":
                return size
            raise
        size += sum(int(part["Size"]) for part in page.get("Parts", ()))
        if not page.get("IsTruncated"):
            return size
        given["PartNumberMarker"] = page["NextPartNumberMarker"]
