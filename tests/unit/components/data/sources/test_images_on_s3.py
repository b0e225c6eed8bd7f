"""Images that rows name, beside their table in S3: on a real server."""

import io
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.data.object_cache import ObjectCache
from lorry_components.data.reading import Reading, digest_source, read_source
from lorry_components.data.rows import IMAGE
from lorry_components.data.sources import s3 as s3_module
from lorry_components.steps.prepare_data.step import load_part, prepare_data
from lorry_components.tasks.definition import find_task_type
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.errors import InvalidDataError, StoreError
from lorry_registry.tasks.task_spec import TaskSpec

from fixtures.images import paint, write_images
from fixtures.s3_server import BUCKET, S3Server

MakeSpec = Callable[..., TaskSpec]


class Bucket:
    """A prefix of a bucket, with a table of images and what else a test puts there."""

    def __init__(self, server: S3Server, prefix: str) -> None:
        self.client = server.open_client()
        self.prefix = prefix
        self.address = f"s3://{BUCKET}/{prefix}"

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}", Body=content)

    def put_folder(self, folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(path.relative_to(folder).as_posix(), path.read_bytes())

    def put_rows(self, *names: str, table: str = "metadata.jsonl") -> None:
        rows = ({"file_name": name, "text": f"a photo, {number}"} for number, name in enumerate(names))
        self.put(table, "".join(f"{json.dumps(row)}\n" for row in rows).encode())


def draw(number: int, side: int = 64) -> bytes:
    stream = io.BytesIO()
    paint(number, side).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def bucket(s3_environment: S3Server) -> Bucket:
    return Bucket(s3_environment, uuid.uuid4().hex)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the keys of the images that are downloaded from now on."""
    keys: list[str] = []
    original = s3_module._read_object

    def note(client: Any, source: str, bucket: str, entry: s3_module.RemoteObject) -> bytes:
        keys.append(entry.key.rpartition("/")[2])
        return original(client, source, bucket, entry)

    monkeypatch.setattr(s3_module, "_read_object", note)
    return keys


@pytest.fixture
def read(make_image_spec: MakeSpec) -> Callable[..., Reading]:
    def read_it(source: str, cache: ObjectCache | None = None) -> Reading:
        spec = make_image_spec(data={"source": source})
        return read_source(spec.data, find_task_type(spec), cache=cache)

    return read_it


@pytest.fixture
def fail(read: Callable[..., Reading]) -> Callable[[str], str]:
    def read_it(source: str) -> str:
        with pytest.raises(InvalidDataError) as caught:
            read(source)
        return str(caught.value)

    return read_it


@pytest.mark.parametrize("address", ["{}", "{}/metadata.jsonl"])
def test_images_in_s3_are_those_on_a_disk(
    bucket: Bucket, make_image_spec: MakeSpec, photographs: Path, tmp_path: Path, address: str
) -> None:
    bucket.put_folder(photographs)
    here = prepare_data(resolve_task(make_image_spec()), tmp_path / "here")
    spec = make_image_spec(data={"source": address.format(bucket.address)})
    there = prepare_data(resolve_task(spec), tmp_path / "there")
    assert there.data_digest == here.data_digest
    assert [example.row[IMAGE] for example in load_part(tmp_path / "there", "train")] == [
        example.row[IMAGE] for example in load_part(tmp_path / "here", "train")
    ]


def test_only_what_rows_name_is_downloaded(
    bucket: Bucket, read: Callable[..., Reading], downloads: list[str]
) -> None:
    for name in ("a.png", "below/b.PNG", "unused.png"):
        bucket.put(name, draw(len(name)))
    bucket.put("notes.txt", b"not an image")
    bucket.put_rows("a.png", "./below//b.PNG", "a.png")
    assert len(read(bucket.address).parts["table"]) == 3
    assert sorted(downloads) == ["a.png", "b.PNG"]


def test_an_unchanged_image_is_downloaded_once(
    bucket: Bucket, read: Callable[..., Reading], downloads: list[str], tmp_path: Path
) -> None:
    def read_images() -> list[str]:
        downloads.clear()
        cache = ObjectCache(tmp_path / "images", limit=1 << 30)
        return [example.row[IMAGE] for example in read(bucket.address, cache).parts["table"]]

    for name in ("a.png", "b.png"):
        bucket.put(name, draw(ord(name[0]) % 7))
    bucket.put_rows("a.png", "b.png")
    first = read_images()
    assert sorted(downloads) == ["a.png", "b.png"]
    assert read_images() == first
    assert downloads == []
    bucket.put("a.png", draw(3))
    changed = read_images()
    assert downloads == ["a.png"]
    assert changed[0] != first[0]
    assert changed[1] == first[1]
    # Whoever damages or exchanges what is kept gains nothing.
    kept = [path for path in (tmp_path / "images").iterdir() if path.is_file()]
    assert len(kept) == 3
    contents = [path.read_bytes() for path in kept]
    for path in kept:
        path.write_bytes(contents[0][:-1] if path == kept[0] else contents[0])
    assert read_images() == changed


def test_the_digest_of_a_source_covers_its_images(bucket: Bucket, make_image_spec: MakeSpec) -> None:
    spec = make_image_spec(data={"source": bucket.address})
    bucket.put("a.png", b"an image")
    bucket.put_rows("a.png")

    def digest() -> str:
        return digest_source(spec.data, find_task_type(spec))

    first = digest()
    assert digest() == first
    bucket.put("notes.txt", b"not an image")
    assert digest() == first
    # As large as before.
    bucket.put("a.png", b"an omega")
    second = digest()
    assert second != first
    bucket.put("below/b.png", b"an image")
    assert digest() not in (first, second)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("../outside.png", "is not the name of a file in the folder of the table"),
        ("/etc/a.png", "is not the name of a file in the folder of the table"),
        ("below/../../outside.png", "is not the name of a file in the folder of the table"),
        ("b\\a.png", "is not the name of a file in the folder of the table"),
        ("s3://elsewhere/a.png", "there is no file 's3://elsewhere/a.png' beside the table"),
        ("missing.png", "there is no file 'missing.png' beside the table"),
        ("notes.txt", "does not end in .png, .jpg, .jpeg, .webp"),
        ("broken.png", "is not an image"),
        ("tiny.png", "each side needs 64 or more"),
        (f"{'x' * 300}.png", "cannot be looked at: File name too long"),
    ],
)
def test_names_stay_below_the_prefix(
    bucket: Bucket, fail: Callable[[str], str], downloads: list[str], name: str, fault: str
) -> None:
    bucket.put("table/a.png", draw(1))
    bucket.put("table/notes.txt", b"x")
    bucket.put("table/broken.png", b"x")
    bucket.put("table/tiny.png", draw(1, side=8))
    bucket.put("outside.png", draw(2))
    bucket.put_rows("a.png", name, table="table/metadata.jsonl")
    message = fail(f"{bucket.address}/table")
    assert "metadata.jsonl line 2: column 'file_name'" in message
    assert fault in message
    assert set(downloads) <= {"a.png", "broken.png", "tiny.png"}


def test_a_key_that_would_leave_the_folder_is_no_image(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server may hold such keys, even where a client cannot write them.
    class Client:
        def get_paginator(self, _: str) -> "Client":
            return self

        def paginate(self, **_: str) -> list[dict[str, Any]]:
            keys = (
                "../a.png",
                "a/../b.png",
                "/c.png",
                "d//e.png",
                "f\\g.png",
                "h\x00.png",
                "i/./j.png",
                "k.png",
            )
            return [{"Contents": [{"Key": f"p/{key}", "Size": 1, "ETag": "x"} for key in keys]}]

    named = s3_module._list_named(Client(), "s3://b/p", "b", "p/", (".png",))
    assert list(named) == ["k.png"]


def test_images_that_are_too_large_are_refused_before_any_is_downloaded(
    bucket: Bucket, fail: Callable[[str], str], downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "MAX_NAMED_BYTES", 1 << 20)
    bucket.put("a.png", draw(1))
    for name in ("b.png", "c.png"):
        bucket.put(name, b"x" * (2 << 20))
    bucket.put_rows("a.png", "b.png", "c.png")
    message = fail(bucket.address)
    for name in ("b.png", "c.png"):
        assert f"{name}: is 2.0 MiB large; it may have 1 MiB" in message
    monkeypatch.setattr(s3_module, "MAX_NAMED_BYTES", 1 << 30)
    monkeypatch.setattr(s3_module, "MAX_NAMED_TOTAL_BYTES", 3 << 20)
    assert "rows name 0.0 GiB of files; they may have 0 GiB" in fail(bucket.address)
    monkeypatch.setattr(s3_module, "MAX_NAMED_OBJECTS", 3)
    assert "there are over 3 objects below its prefix" in fail(bucket.address)
    assert downloads == []


def test_an_image_that_changes_after_it_was_listed_is_told(
    bucket: Bucket, fail: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("a.png", draw(1))
    bucket.put_rows("a.png")
    original = s3_module.download_named

    def change_first(*arguments: Any) -> None:
        bucket.put("a.png", draw(2))
        original(*arguments)

    monkeypatch.setattr("lorry_components.data.reading.download_named", change_first)
    assert "S3 refuses to give it" in fail(bucket.address)


def test_a_name_that_is_the_folder_of_another(bucket: Bucket, tmp_path: Path) -> None:
    files = s3_module.RemoteFiles(
        BUCKET,
        {},
        in_folder=True,
        named={
            name: s3_module.RemoteObject(f"{bucket.prefix}/x.png", len(draw(1)), etag)
            for etag in [
                bucket.client.put_object(Bucket=BUCKET, Key=f"{bucket.prefix}/x.png", Body=draw(1))["ETag"]
            ]
            for name in ("a.png", "a.png/b.png")
        },
    )
    with pytest.raises(InvalidDataError, match="one object's name is the folder of another's"):
        s3_module.download_named(bucket.address, files, list(files.named), tmp_path / "tables")


def test_many_images_come_several_at_a_time(
    bucket: Bucket, read: Callable[..., Reading], tmp_path: Path
) -> None:
    bucket.put_folder(write_images(tmp_path / "many", 40))
    assert len(read(bucket.address).parts["table"]) == 40


# The cache


def test_a_cache_of_objects_stays_within_its_size(tmp_path: Path) -> None:
    for number in range(6):
        # A process prunes once.
        ObjectCache(tmp_path, limit=500).keep(b"x" * 100, "object", number)
    assert len(list(tmp_path.iterdir())) <= 5
    assert ObjectCache(tmp_path, limit=500).find("object", 5) == b"x" * 100
    (tmp_path / f".old.{'0' * 32}.partial").write_bytes(b"x" * 1000)
    ObjectCache(tmp_path, limit=500).keep(b"y" * 100, "object", 6)
    assert not list(tmp_path.glob(".*"))
    assert ObjectCache(tmp_path, limit=500).find("object", 5) == b"x" * 100


def test_a_cache_that_cannot_be_written_only_makes_it_slower(
    bucket: Bucket, read: Callable[..., Reading], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    bucket.put("a.png", draw(1))
    bucket.put_rows("a.png")
    cache = ObjectCache(tmp_path / "file" / "images", limit=1000)
    assert len(read(bucket.address, cache).parts["table"]) == 1


def test_a_full_disk_is_told(
    bucket: Bucket, read: Callable[..., Reading], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("a.png", draw(1))
    bucket.put_rows("a.png")

    def fail(path: Path, _: bytes) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(StoreError, match="cannot keep a download: No space left on device"):
        read(bucket.address)
