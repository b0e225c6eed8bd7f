"""A store on S3 behind a network that loses, cuts, delays and damages what it carries."""

from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import ConflictError, StoreError
from lorry_registry.stores import s3_store
from lorry_registry.stores.s3_store import S3Store

from fixtures.s3_faults import STALL_SECONDS, FaultProxy
from fixtures.s3_server import BUCKET, QUICK, S3Server

_WRITES = [
    ["busy", "busy"],
    ["conflict"],
    ["drop"],
    ["lose"],
    ["stall"],
    ["flip-sent"],
    ["lose", "busy", "lose", "drop"],
]
_MIB = 1 << 20


@pytest.fixture
def shaky(s3_address: str, faults: FaultProxy) -> S3Store:
    """Return a store behind the proxy, whose address and probe are done with."""
    store = S3Store(s3_address, retries=QUICK, read_seconds=STALL_SECONDS / 2)
    store.check_writable()
    faults.requests.clear()
    return store


@pytest.fixture
def steady(shaky: S3Store, s3_server: S3Server) -> S3Store:
    """Return the same store, reached without the proxy."""
    store = S3Store(shaky.address, retries=QUICK)
    store.__dict__["_client"] = s3_server.open_client()
    return store


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let files above 5 MiB be uploaded in parts of that size, and return one of 12 MiB."""
    monkeypatch.setattr(s3_store, "_PART_BYTES", 5 * _MIB)
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * (12 * _MIB // 256))
    return path


def _plan(faults: FaultProxy, method: str, names: list[str]) -> None:
    faults.plan.extend((method, name) for name in names)


def _list_uploads(server: S3Server, store: S3Store) -> list[Any]:
    prefix = store.address.removeprefix(f"s3://{BUCKET}/")
    answer = server.open_client().list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
    return list(answer.get("Uploads", ()))


@pytest.mark.parametrize("names", _WRITES, ids="-".join)
def test_a_creation_is_recovered(faults: FaultProxy, shaky: S3Store, names: list[str]) -> None:
    _plan(faults, "PUT", names)
    shaky.create("a/b", b"content")
    assert not faults.plan
    stored = shaky.read("a/b")
    assert stored is not None
    assert stored.content == b"content"


@pytest.mark.parametrize("names", _WRITES, ids="-".join)
def test_a_swap_is_recovered_and_happens_once(
    faults: FaultProxy,
    shaky: S3Store,
    names: list[str],
) -> None:
    first = shaky.compare_and_swap("head", b"1", None)
    _plan(faults, "PUT", names)
    second = shaky.compare_and_swap("head", b"2", first)
    assert not faults.plan
    stored = shaky.read("head")
    assert stored is not None
    assert (stored.content, stored.etag) == (b"2", second)
    with pytest.raises(ConflictError):
        shaky.compare_and_swap("head", b"3", first)
    shaky.compare_and_swap("head", b"3", second)


@pytest.mark.parametrize("names", [["busy", "busy"], ["drop"], ["lose"], ["stall"]], ids="-".join)
def test_a_deletion_is_recovered(faults: FaultProxy, shaky: S3Store, names: list[str]) -> None:
    shaky.create("a/b", b"content")
    _plan(faults, "DELETE", names)
    shaky.delete("a/b")
    assert not faults.plan
    assert shaky.read("a/b") is None


def test_deleting_many_keys_is_recovered(faults: FaultProxy, shaky: S3Store) -> None:
    keys = [f"a/{number}" for number in range(3)]
    for key in keys:
        shaky.create(key, b"content")
    _plan(faults, "POST", ["busy", "lose"])
    shaky.delete_all(keys)
    assert not faults.plan
    assert list(shaky.list_keys("a")) == []


def test_an_upload_in_parts_that_nobody_completed_is_listed_and_removed(
    shaky: S3Store, s3_server: S3Server
) -> None:
    client = s3_server.open_client()
    folder = shaky.address.removeprefix(f"s3://{BUCKET}/")
    places = []
    for key in (f"{folder}/a/weights", f"{folder}/other/weights", f"{folder}2/a/weights"):
        started = client.create_multipart_upload(Bucket=BUCKET, Key=key)
        places.append({"Bucket": BUCKET, "Key": key, "UploadId": started["UploadId"]})
        client.upload_part(**places[-1], PartNumber=1, Body=b"x" * 100)
    try:
        (write,) = shaky.list_unfinished(["a", "nothing"])
        assert write.name.startswith("a/weights?uploadId=")
        assert write.size == 100
        assert abs((shaky.read_clock() - write.modified).total_seconds()) < 60
        shaky.remove_unfinished(write)
        shaky.remove_unfinished(write)
        assert list(shaky.list_unfinished(["a"])) == []
        assert len(list(shaky.list_unfinished(["other"]))) == 1
    finally:
        for place in places[1:]:
            client.abort_multipart_upload(**place)


def test_a_key_that_may_not_be_deleted_among_many_is_reported(
    shaky: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"Errors": [{"Key": "a", "Code": "NoSuchKey"}, {"Key": "b", "Code": "AccessDenied"}]}
    monkeypatch.setattr(shaky.__dict__["_client"], "delete_objects", lambda **_: answer)
    with pytest.raises(StoreError, match="cannot delete: access denied, s3:DeleteObject is not allowed"):
        shaky.delete_all(["a", "b"])


@pytest.mark.parametrize("expects", [True, False])
def test_a_swap_that_lost_to_the_same_content_is_a_conflict(
    faults: FaultProxy,
    shaky: S3Store,
    steady: S3Store,
    expects: bool,
) -> None:
    tag = shaky.compare_and_swap("head", b"1", None) if expects else None
    _plan(faults, "PUT", ["drop"])
    faults.before = lambda: steady.compare_and_swap("head", b"2", tag)
    with pytest.raises(ConflictError, match="changed by another writer"):
        shaky.compare_and_swap("head", b"2", tag)


def test_a_server_that_stays_busy_is_one_clear_error(
    faults: FaultProxy,
    shaky: S3Store,
    steady: S3Store,
    tmp_path: Path,
) -> None:
    (tmp_path / "in").write_bytes(b"x")
    faults.always = dict.fromkeys(("PUT", "GET"), "busy")
    for action in (
        lambda: shaky.create("a/b", b"x"),
        lambda: shaky.compare_and_swap("a/b", b"x", None),
        lambda: shaky.upload("a/b", tmp_path / "in"),
        lambda: shaky.read("a/b"),
        lambda: shaky.list_children("a"),
    ):
        faults.requests.clear()
        with pytest.raises(StoreError, match="S3 still answers SlowDown") as caught:
            action()
        assert len(faults.requests) == QUICK.attempts
        assert "try again later" in caught.value.todo
    assert steady.read("a/b") is None


@pytest.mark.parametrize("fault", ["drop", "stall"])
def test_a_server_that_stays_silent_is_one_clear_error(
    faults: FaultProxy,
    shaky: S3Store,
    fault: str,
) -> None:
    faults.always = {"PUT": fault}
    with pytest.raises(StoreError, match="cannot be reached, or the connection broke") as caught:
        shaky.create("a/b", b"x")
    assert faults.endpoint in str(caught.value)
    assert caught.value.where == f"{shaky.address}/a/b"


def test_what_is_denied_is_not_asked_again(faults: FaultProxy, shaky: S3Store) -> None:
    faults.always = dict.fromkeys(("PUT", "GET"), "denied")
    with pytest.raises(StoreError, match="s3:PutObject is not allowed") as caught:
        shaky.create("a/b", b"x")
    assert caught.value.where == f"{shaky.address}/a/b"
    with pytest.raises(StoreError, match="s3:GetObject is not allowed"):
        shaky.read("a/b")
    with pytest.raises(StoreError, match="s3:ListBucket is not allowed"):
        shaky.list_children("a")
    assert len(faults.requests) == 3


@pytest.mark.parametrize("names", [["busy", "busy"], ["drop"], ["lose"], ["stall"], ["cut", "cut"], ["flip"]])
def test_reading_is_recovered(
    faults: FaultProxy,
    shaky: S3Store,
    tmp_path: Path,
    names: list[str],
) -> None:
    content = bytes(range(256)) * 1000
    shaky.create("a/b", content)
    digest = shaky.digest_key("a/b")
    _plan(faults, "GET", names)
    stored = shaky.read("a/b")
    assert stored is not None
    assert stored.content == content
    _plan(faults, "GET", names)
    shaky.download("a/b", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content
    _plan(faults, "GET", names)
    assert shaky.digest_key("a/b") == digest
    _plan(faults, "GET", [name for name in names if name not in ("cut", "flip")])
    assert list(shaky.list_keys("a")) == ["a/b"]
    assert not faults.plan


@pytest.mark.parametrize(
    ("fault", "message"), [("cut", "the connection broke"), ("flip", "the checksums differ")]
)
def test_a_download_that_never_arrives_leaves_nothing(
    faults: FaultProxy,
    shaky: S3Store,
    tmp_path: Path,
    fault: str,
    message: str,
) -> None:
    shaky.create("a/b", b"content" * 1000)
    faults.always = {"GET": fault}
    with pytest.raises(StoreError, match=message):
        shaky.download("a/b", tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("PUT", ["busy", "drop", "lose", "flip-sent"]),
        ("POST", ["busy", "busy"]),
        ("POST", ["", "lose"]),
        ("POST", ["", "conflict"]),
        ("POST", ["", *["conflict"] * QUICK.attempts]),
        ("POST", ["", "stall", "drop"]),
        ("HEAD", ["drop", "lose"]),
    ],
)
def test_a_large_file_is_recovered(
    faults: FaultProxy,
    shaky: S3Store,
    s3_server: S3Server,
    in_parts: Path,
    method: str,
    names: list[str],
) -> None:
    _plan(faults, method, names)
    shaky.upload("a/weights", in_parts)
    assert not faults.plan
    assert shaky.digest_key("a/weights") == s3_store.digest_file(in_parts)
    assert not _list_uploads(s3_server, shaky)


def test_a_large_file_that_cannot_be_completed_leaves_nothing(
    faults: FaultProxy,
    shaky: S3Store,
    steady: S3Store,
    s3_server: S3Server,
    in_parts: Path,
) -> None:
    _plan(faults, "POST", ["", *["busy"] * QUICK.attempts])
    with pytest.raises(StoreError, match="S3 still answers SlowDown"):
        shaky.upload("a/weights", in_parts)
    assert steady.read("a/weights") is None
    assert not _list_uploads(s3_server, shaky)


def test_of_two_large_files_of_one_name_the_first_stays(
    faults: FaultProxy,
    shaky: S3Store,
    steady: S3Store,
    s3_server: S3Server,
    in_parts: Path,
) -> None:
    """Another writer comes between the first look and the last request."""
    _plan(faults, "POST", ["", "drop"])
    faults.before = lambda: steady.create("a/weights", b"other")
    with pytest.raises(ConflictError, match="exists with other content"):
        shaky.upload("a/weights", in_parts)
    stored = steady.read("a/weights")
    assert stored is not None
    assert not _list_uploads(s3_server, shaky)
