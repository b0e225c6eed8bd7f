"""What every store keeps: in a folder, in memory, on S3."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import ConflictError, NotFoundError, StoreError
from lorry_registry.files.digests import digest_bytes
from lorry_registry.stores import LocalStore, Store, check_key

from fixtures.memory_store import MemoryStore

_COUNT_TO_TEN = """
import sys
from lorry_registry.errors import ConflictError
from lorry_registry.stores import open_store

store, name = open_store(sys.argv[1]), sys.argv[2]
for turn in range(10):
    while True:
        stored = store.read("counter")
        lines = stored.content if stored else b""
        try:
            lines += f"{name}-{turn}\\n".encode()
            store.compare_and_swap("counter", lines, stored.etag if stored else None)
            break
        except ConflictError:
            continue
"""

_CREATE_ONCE = """
import sys
from lorry_registry.errors import ConflictError
from lorry_registry.stores import open_store

try:
    open_store(sys.argv[1]).create("one/key", sys.argv[2].encode())
    print("created")
except ConflictError:
    print("conflict")
"""


_WRITE_AND_DELETE = """
import sys
from lorry_registry.stores import open_store

store, name = open_store(sys.argv[1]), sys.argv[2]
for turn in range(40):
    key = f"one/folder/{name}"
    if turn % 2:
        store.create(key, b"x")
    else:
        store.compare_and_swap(key, b"x", None)
    assert store.read(key) is not None
    store.delete(key)
    assert store.read(key) is None
"""


# Memory is of one process, and reads what is put into it.
shared = pytest.mark.parametrize("store", ["folder", "s3"], indirect=True)


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return an empty store of each kind."""
    if request.param == "s3":
        on_s3: Store = request.getfixturevalue("s3_store")
        return on_s3
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "store")


def test_a_key_is_created_once_and_again_with_the_same_content(store: Store) -> None:
    store.create("a/b", b"one")
    store.create("a/b", b"one")
    with pytest.raises(ConflictError, match="exists with other content") as caught:
        store.create("a/b", b"two")
    assert "a/b" in str(caught.value)
    stored = store.read("a/b")
    assert stored is not None
    assert stored.content == b"one"


def test_a_missing_key_is_none(store: Store) -> None:
    assert store.read("a/b") is None
    assert store.digest_key("a/b") is None
    store.create("a", b"a file")
    assert store.read("a/b") is None
    assert store.digest_key("a/b") is None


def test_the_digest_is_that_of_the_content(store: Store) -> None:
    for key, content in {"a/empty": b"", "a/full": b"x" * 3_000_000}.items():
        store.create(key, content)
        assert store.digest_key(key) == digest_bytes(content)


def test_a_swap_needs_the_present_tag(store: Store) -> None:
    first = store.compare_and_swap("head", b"1", None)
    with pytest.raises(ConflictError, match="changed by another writer"):
        store.compare_and_swap("head", b"2", None)
    with pytest.raises(ConflictError, match="changed by another writer"):
        store.compare_and_swap("head", b"1", None)
    second = store.compare_and_swap("head", b"2", first)
    with pytest.raises(ConflictError):
        store.compare_and_swap("head", b"3", first)
    with pytest.raises(ConflictError):
        store.compare_and_swap("absent", b"3", second)
    stored = store.read("head")
    assert stored is not None
    assert (stored.content, stored.etag) == (b"2", second)


def test_replace_writes_whatever_was_there(store: Store) -> None:
    store.replace("a/note", b"1")
    store.replace("a/note", b"2")
    stored = store.read("a/note")
    assert stored is not None
    assert stored.content == b"2"


def test_files_go_in_and_come_out(store: Store, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"weights")
    store.upload("a/weights", tmp_path / "in")
    store.upload("a/weights", tmp_path / "in")
    store.download("a/weights", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"weights"
    (tmp_path / "in").write_bytes(b"others!")
    with pytest.raises(ConflictError, match="exists with other content"):
        store.upload("a/weights", tmp_path / "in")
    with pytest.raises(NotFoundError, match="no such key"):
        store.download("a/missing", tmp_path / "out")
    with pytest.raises(NotFoundError, match="no such key"):
        store.download("a/weights/below", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"weights"


def test_a_file_that_is_missing_and_a_folder_that_is_missing_are_clear_errors(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="No such file"):
        store.upload("a/b", tmp_path / "missing")
    assert store.read("a/b") is None
    store.create("a/b", b"x")
    with pytest.raises(StoreError, match="cannot be written: No such file"):
        store.download("a/b", tmp_path / "missing" / "out")


def test_keys_and_children_are_listed_in_order_without_hidden_ones(store: Store) -> None:
    for key in ("t/b/2", "t/b/10", "t/a/1", "t/a-b/1", "u/x"):
        store.create(key, b"")
    store.compare_and_swap("t/c/head", b"", None)
    assert list(store.list_keys("t")) == ["t/a/1", "t/a-b/1", "t/b/10", "t/b/2", "t/c/head"]
    assert store.list_children("t") == ["a", "a-b", "b", "c"]
    assert list(store.list_keys("nothing")) == []
    assert store.list_children("nothing") == []


def test_a_deleted_key_is_gone_and_can_be_made_again(store: Store) -> None:
    for key in ("t/a/1", "t/a/2", "t/b/1", "u"):
        store.create(key, b"one")
    tag = store.compare_and_swap("t/b/head", b"1", None)
    for key in ("t/a/1", "t/b/1", "t/b/head", "u"):
        store.delete(key)
        assert store.read(key) is None
    assert list(store.list_keys("t")) == ["t/a/2"]
    assert "a" in store.list_children("t")
    with pytest.raises(ConflictError, match="changed by another writer"):
        store.compare_and_swap("t/b/head", b"2", tag)
    store.compare_and_swap("t/b/head", b"2", None)
    store.create("t/a/1", b"two")
    stored = store.read("t/a/1")
    assert stored is not None
    assert stored.content == b"two"


def test_deleting_what_is_not_there_is_a_success(store: Store) -> None:
    store.delete("a/b")
    store.create("a", b"a file")
    store.delete("a/b")
    store.create("t/a/1", b"")
    store.delete("t/a")
    store.delete("t/a/2")
    assert list(store.list_keys("t")) == ["t/a/1"]
    assert store.read("a") is not None


def test_entries_have_a_size_and_an_age_by_the_clock_of_the_store(store: Store, tmp_path: Path) -> None:
    before = store.read_clock()
    (tmp_path / "in").write_bytes(b"weights")
    store.create("t/a/1", b"one")
    store.upload("t/a/weights", tmp_path / "in")
    store.compare_and_swap("t/b/head", b"", None)
    store.create("tt/x", b"")
    entries = {entry.key: entry for entry in store.list_entries("t")}
    after = store.read_clock()
    assert {key: entry.size for key, entry in entries.items()} == {
        "t/a/1": 3,
        "t/a/weights": 7,
        "t/b/head": 0,
    }
    # S3 counts whole seconds.
    second = timedelta(seconds=1)
    assert all(before - second <= entry.modified <= after + second for entry in entries.values())
    assert abs(datetime.now(UTC) - after) < timedelta(minutes=5)
    assert list(store.list_entries("nothing")) == []


def test_what_is_overwritten_is_young_again(store: Store) -> None:
    store.overwrite("t/lease", b"1")
    first = next(store.list_entries("t")).modified
    time.sleep(1.1)
    store.overwrite("t/lease", b"two")
    (entry,) = store.list_entries("t")
    assert entry.modified > first
    assert entry.size == 3


def test_many_keys_are_deleted_at_once(store: Store) -> None:
    keys = [f"t/{number}" for number in range(12)]
    for key in keys:
        store.create(key, b"")
    store.delete_all([])
    store.delete_all([*keys[:-1], "t/missing"])
    assert [entry.key for entry in store.list_entries("t")] == keys[-1:]


def test_a_prefix_is_a_whole_part(store: Store) -> None:
    store.create("runs/1/a", b"")
    store.create("runs/10/b", b"")
    assert list(store.list_keys("runs/1")) == ["runs/1/a"]
    assert store.list_children("runs/1") == ["a"]


@pytest.mark.parametrize(
    "key",
    [
        "../x",
        "a/../b",
        "",
        "/etc/passwd",
        "a//b",
        "a/",
        ".hidden",
        "a/.lock",
        "a b",
        "a\n",
        "ä",
        "a\\b",
        "a\0b",
    ],
)
def test_keys_stay_inside_the_store(store: Store, key: str) -> None:
    with pytest.raises(StoreError, match="is not a key"):
        check_key(key)
    actions: list[Callable[[], Any]] = [
        lambda: store.read(key),
        lambda: store.digest_key(key),
        lambda: store.create(key, b""),
        lambda: store.compare_and_swap(key, b"", None),
        lambda: store.upload(key, Path("/dev/null")),
        lambda: store.download(key, Path("/dev/null")),
        lambda: store.delete(key),
        lambda: store.delete_all([key]),
        lambda: store.overwrite(key, b""),
        lambda: list(store.list_entries(key)),
        lambda: store.list_children(key),
        lambda: list(store.list_keys(key)),
        lambda: store.locate(key),
        lambda: store.find_path(key),
    ]
    for action in actions:
        with pytest.raises(StoreError, match="is not a key"):
            action()


def test_a_store_that_can_be_written_is_left_empty(store: Store) -> None:
    store.check_writable()
    store.check_writable()
    store.create("t/a", b"")
    assert store.list_children("t") == ["a"]


@shared
def test_no_swap_of_several_processes_is_lost(store: Store, run_scripts: Callable[..., list[str]]) -> None:
    names = ["a", "b", "c", "d"]
    run_scripts(_COUNT_TO_TEN, [(store.address, name) for name in names])
    stored = store.read("counter")
    assert stored is not None
    assert sorted(stored.content.decode().split()) == sorted(
        f"{name}-{turn}" for name in names for turn in range(10)
    )


@shared
def test_writers_and_deleters_of_one_folder_do_not_disturb_each_other(
    store: Store, run_scripts: Callable[..., list[str]]
) -> None:
    run_scripts(_WRITE_AND_DELETE, [(store.address, name) for name in ("a", "b", "c")])
    assert list(store.list_keys("one")) == []


@shared
def test_of_several_creators_one_wins(store: Store, run_scripts: Callable[..., list[str]]) -> None:
    outputs = run_scripts(_CREATE_ONCE, [(store.address, content) for content in ("x", "y", "z")])
    assert sorted(output.strip() for output in outputs) == ["conflict", "conflict", "created"]


@shared
def test_a_document_that_is_too_large_to_be_one_is_not_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("local_store", "s3_store"):
        monkeypatch.setattr(f"lorry_registry.stores.{module}.MAX_DOCUMENT_BYTES", 1000)
    store.create("one/small", b"x" * 1000)
    store.create("one/large", b"x" * 1001)
    stored = store.read("one/small")
    assert stored is not None
    assert len(stored.content) == 1000
    with pytest.raises(StoreError, match="is larger than") as caught:
        store.read("one/large")
    assert store.locate("one/large") in str(caught.value)
    # As a file it may have any size.
    store.download("one/large", tmp_path / "large")
    assert (tmp_path / "large").stat().st_size == 1001
    assert store.digest_key("one/large") == digest_bytes(b"x" * 1001)
