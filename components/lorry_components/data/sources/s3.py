"""Sources in S3: what there is below an address, and bounded downloads of it.

Endpoint, region and credentials are boto3's to find: ``AWS_ENDPOINT_URL``, ``AWS_PROFILE`` and so on.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from lorry_components.data.faults import FaultLog, refuse_source, shorten
from lorry_components.data.layout import KNOWN_ENDINGS, find_format, list_names
from lorry_components.data.object_cache import ObjectCache
from lorry_components.data.rows import MAX_FILE_BYTES
from lorry_registry.errors import StoreError
from lorry_registry.stores.concurrency import map_concurrent
from lorry_registry.stores.s3_client import share_client
from lorry_registry.text.sizes import format_in

MAX_OBJECTS = 10_000
# Of what rows name: how many objects may lie below the prefix, and how large one and all may be.
MAX_NAMED_OBJECTS = 100_000
MAX_NAMED_BYTES = 32 << 20
MAX_NAMED_TOTAL_BYTES = 8 << 30

_CHUNK_BYTES = 1 << 20
_DOWNLOADS = 8
_MAX_PART_BYTES = 255
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
        named: The objects that rows may name, by the name that they have below the tables' prefix.
    """

    bucket: str
    objects: Mapping[str, RemoteObject]
    in_folder: bool
    named: Mapping[str, RemoteObject] = field(default_factory=dict)


def list_remote_files(source: str, endings: Sequence[str] = ()) -> RemoteFiles:
    """Find the readable objects directly below ``s3://bucket/prefix``, or the one at ``s3://bucket/key``.

    Args:
        source: The address.
        endings: The endings of objects beside the tables, and below, that rows may name.

    Raises:
        InvalidDataError: Nothing readable is there, it is too large, or S3 cannot be asked.
    """
    bucket, _, key = source.removeprefix("s3://").partition("/")
    if not bucket:
        refuse_source(source, "data.source", "names no bucket", "write s3://bucket/key")
    with _open_client(source) as client:
        if find_format(key):
            head = client.head_object(Bucket=bucket, Key=key)
            folder, _, name = key.rpartition("/")
            objects = {name: RemoteObject(key, head["ContentLength"], head["ETag"])}
            named = _list_named(client, source, bucket, f"{folder}/" if folder else "", endings)
            return _check_sizes(source, RemoteFiles(bucket, objects, in_folder=False, named=named))
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
        named = _list_named(client, source, bucket, prefix, endings)
    if not objects:
        refuse_source(
            source,
            "data.source",
            f"there is no file to read at this address; there is {list_names(names)}",
            f"a file to read ends in {KNOWN_ENDINGS}; {_ADDRESS_TODO}",
        )
    return _check_sizes(source, RemoteFiles(bucket, objects, in_folder=True, named=named))


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


def download_named(
    source: str, files: RemoteFiles, names: Sequence[str], folder: Path, cache: ObjectCache | None = None
) -> None:
    """Download objects that rows name into a folder, several at a time, each whole and as it was listed.

    Args:
        source: The address of the source.
        files: What was listed there.
        names: Some of the names in ``files.named``.
        folder: Where the tables are.
        cache: Where unchanged ones are found, and new ones are kept.

    Raises:
        InvalidDataError: Objects are too large, changed since they were listed, or cannot be downloaded.
        StoreError: The folder cannot be written.
    """
    _check_named(source, {name: files.named[name] for name in names})
    with _open_client(source) as client:

        def download(name: str) -> None:
            entry = files.named[name]
            identity = (client.meta.endpoint_url, files.bucket, entry.key, entry.etag, entry.size)
            content = cache.find(*identity) if cache is not None else None
            if content is None:
                content = _read_object(client, source, files.bucket, entry)
                if cache is not None:
                    cache.keep(content, *identity)
            _save_named(source, name, content, folder)

        for _ in map_concurrent(download, names, _DOWNLOADS):
            pass


def _read_object(client: Any, source: str, bucket: str, entry: RemoteObject) -> bytes:
    answer = client.get_object(Bucket=bucket, Key=entry.key, IfMatch=entry.etag)
    with contextlib.closing(answer["Body"]) as body:
        content: bytes = body.read(entry.size + 1)
    if len(content) != entry.size:
        refuse_source(
            source, entry.key, f"{len(content):,} bytes came, {entry.size:,} were announced", "run again"
        )
    return content


def _save_named(source: str, name: str, content: bytes, folder: Path) -> None:
    path = folder / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        refuse_source(source, name, "one object's name is the folder of another's", "rename one of them")
    except OSError as error:
        _refuse_disk(folder, error)


def _check_named(source: str, named: Mapping[str, RemoteObject]) -> None:
    log = FaultLog(source)
    for name, entry in named.items():
        if entry.size > MAX_NAMED_BYTES:
            size = format_in(entry.size, "MiB")
            log.add_file(
                shorten(name), f"is {size} large; it may have {MAX_NAMED_BYTES >> 20} MiB", "scale it down"
            )
    total = sum(entry.size for entry in named.values())
    if total > MAX_NAMED_TOTAL_BYTES:
        size, limit = format_in(total, "GiB"), MAX_NAMED_TOTAL_BYTES >> 30
        log.add_file("data.source", f"rows name {size} of files; they may have {limit} GiB", "take a sample")
    log.raise_if_any()


def _list_named(
    client: Any, source: str, bucket: str, prefix: str, endings: Sequence[str]
) -> dict[str, RemoteObject]:
    """Return the objects below a prefix whose names end as given, and would stay below a folder."""
    named: dict[str, RemoteObject] = {}
    if not endings:
        return named
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for count, entry in enumerate(entry for page in pages for entry in page.get("Contents", ())):
        if count == MAX_NAMED_OBJECTS:
            refuse_source(
                source,
                "data.source",
                f"there are over {MAX_NAMED_OBJECTS:,} objects below its prefix",
                "put the tables and the files that they name under a prefix of their own",
            )
        name = entry["Key"].removeprefix(prefix)
        if name.lower().endswith(tuple(endings)) and all(map(_is_part, name.split("/"))):
            named[name] = RemoteObject(entry["Key"], entry["Size"], entry["ETag"])
    return named


def _is_part(part: str) -> bool:
    """Whether a part of a name is a file's or folder's on any disk, and leads nowhere else."""
    is_short = len(part.encode("utf-8", "surrogatepass")) <= _MAX_PART_BYTES
    return part not in ("", ".", "..") and "\\" not in part and part.isprintable() and is_short


def _refuse_disk(folder: Path, error: OSError) -> NoReturn:
    raise StoreError(
        f"cannot keep a download: {error.strerror or error}",
        where=str(folder),
        todo="free space there, or set TMPDIR to a folder with more",
    ) from error


def _save_body(body: Any, target: Path, limit: int) -> int:
    """Write at most one chunk more than was announced; return how many bytes came."""
    size = 0
    try:
        with target.open("wb") as stream:
            while size <= limit and (chunk := body.read(_CHUNK_BYTES)):
                size += stream.write(chunk)
    except OSError as error:
        _refuse_disk(target.parent, error)
    return size


def _list_entries(client: Any, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    for page in pages:
        yield from page.get("Contents", ())


def _is_plain(name: str) -> bool:
    """Whether a name stays in the folder that it is downloaded to: a bucket's owner may write anything."""
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
        yield share_client()
    except ClientError as error:
        details = error.response.get("Error", {})
        reason = f"{details.get('Code', 'error')} {details.get('Message', '')}".strip()
        refuse_source(source, "data.source", f"S3 refuses to give it: {shorten(reason, 160)}", _ADDRESS_TODO)
    except (BotoCoreError, ValueError) as error:
        reason = shorten(str(error), 160)
        refuse_source(source, "data.source", f"S3 cannot be asked: {reason}", _ADDRESS_TODO)
