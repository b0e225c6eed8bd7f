"""Sources in S3: what there is below an address, and bounded downloads of it.

Endpoint, region and credentials are boto3's to find: ``AWS_ENDPOINT_URL``, ``AWS_PROFILE`` and so on.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorry_components.data.faults import refuse_source, shorten
from lorry_components.data.layout import KNOWN_ENDINGS, find_format, list_names
from lorry_components.data.records import MAX_FILE_BYTES
from lorry_registry.errors import StoreError
from lorry_registry.sizes import format_in
from lorry_registry.stores.s3_client import make_client

MAX_OBJECTS = 10_000

_CHUNK_BYTES = 1 << 20
_ADDRESS_TODO = (
    "check data.source, and the AWS_* settings of this environment (AWS_ENDPOINT_URL, AWS_PROFILE)"
)


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """One object: its key, its size in bytes, and the tag that changes with its content."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class RemoteFiles:
    """The readable objects of a source in S3.

    Attributes:
        bucket: Where they are.
        objects: The objects, by the name that they have directly below the address; at least one.
        in_folder: Whether the address is a prefix, not one object.
    """

    bucket: str
    objects: Mapping[str, RemoteObject]
    in_folder: bool


def list_remote_files(source: str) -> RemoteFiles:
    """Find the readable objects directly below ``s3://bucket/prefix``, or the one at ``s3://bucket/key``.

    Raises:
        InvalidDataError: Nothing readable is there, it is too large, or S3 cannot be asked.
    """
    bucket, _, key = source.removeprefix("s3://").partition("/")
    if not bucket:
        refuse_source(source, "data.source", "names no bucket", "write s3://bucket/key")
    with _open_client(source) as client:
        if find_format(key):
            head = client.head_object(Bucket=bucket, Key=key)
            objects = {key.rpartition("/")[2]: RemoteObject(key, head["ContentLength"], head["ETag"])}
            return _check_sizes(source, RemoteFiles(bucket, objects, in_folder=False))
        prefix = f"{key.rstrip('/')}/" if key else ""
        names: list[str] = []
        objects = {}
        for entry in _list_entries(client, bucket, prefix):
            name = entry["Key"].removeprefix(prefix)
            names.append(name)
            if _is_plain(name) and find_format(name):
                objects[name] = RemoteObject(entry["Key"], entry["Size"], entry["ETag"])
            if len(names) > MAX_OBJECTS:
                refuse_source(source, "data.source", f"holds over {MAX_OBJECTS:,} objects", _ADDRESS_TODO)
    if not objects:
        refuse_source(
            source,
            "data.source",
            f"there is no file to read at this address; there is {list_names(names)}",
            f"a file to read ends in {KNOWN_ENDINGS}; {_ADDRESS_TODO}",
        )
    return _check_sizes(source, RemoteFiles(bucket, objects, in_folder=True))


def download_files(source: str, files: RemoteFiles, names: tuple[str, ...], folder: Path) -> None:
    """Download some of the listed objects into a folder, each whole and as it was listed.

    Raises:
        InvalidDataError: An object changed since it was listed, or cannot be downloaded.
        StoreError: The folder cannot be written.
    """
    with _open_client(source) as client:
        for name in names:
            entry = files.objects[name]
            answer = client.get_object(Bucket=files.bucket, Key=entry.key, IfMatch=entry.etag)
            with contextlib.closing(answer["Body"]) as body:
                size = _save_body(body, folder / name, entry.size)
            if size != entry.size:
                refuse_source(
                    source, name, f"{size:,} bytes came, {entry.size:,} were announced", "run again"
                )


def _save_body(body: Any, target: Path, limit: int) -> int:
    """Write at most one chunk more than was announced; return how many bytes came."""
    size = 0
    try:
        with target.open("wb") as stream:
            while size <= limit and (chunk := body.read(_CHUNK_BYTES)):
                size += stream.write(chunk)
    except OSError as error:
        raise StoreError(
            f"cannot keep a download: {error.strerror or error}",
            where=str(target.parent),
            todo="free space there, or set TMPDIR to a folder with more",
        ) from error
    return size


def _list_entries(client: Any, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    for page in pages:
        yield from page.get("Contents", ())


def _is_plain(name: str) -> bool:
    """Whether a name stays in the folder that it is downloaded to, whatever the bucket's owner wrote."""
    return not name.startswith(".") and "/" not in name and "\\" not in name and name.isprintable()


def _check_sizes(source: str, files: RemoteFiles) -> RemoteFiles:
    for name, entry in files.objects.items():
        if entry.size > MAX_FILE_BYTES:
            size = format_in(entry.size, "GiB")
            refuse_source(
                source, name, f"is {size} large; a file may have 1 GiB", "take a sample, or cut it up"
            )
    return files


@contextlib.contextmanager
def _open_client(source: str) -> Iterator[Any]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        with contextlib.closing(make_client()) as client:
            yield client
    except ClientError as error:
        details = error.response.get("Error", {})
        reason = f"{details.get('Code', 'error')} {details.get('Message', '')}".strip()
        refuse_source(source, "data.source", f"S3 refuses to give it: {shorten(reason, 160)}", _ADDRESS_TODO)
    except (BotoCoreError, ValueError) as error:
        reason = shorten(str(error), 160)
        refuse_source(source, "data.source", f"S3 cannot be asked: {reason}", _ADDRESS_TODO)
