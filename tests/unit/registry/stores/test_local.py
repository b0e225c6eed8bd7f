import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.digests import digest_bytes
from lorry_registry.errors import ConflictError, NotFoundError, StoreError
from lorry_registry.stores import LocalStore, check_key, open_store

_COUNT_TO_TEN = """
import sys
from pathlib import Path
from lorry_registry.errors import ConflictError
from lorry_registry.stores import LocalStore

store, name = LocalStore(Path(sys.argv[1])), sys.argv[2]
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
from pathlib import Path
from lorry_registry.errors import ConflictError
from lorry_registry.stores import LocalStore

try:
    LocalStore(Path(sys.argv[1])).create("one/key", sys.argv[2].encode())
    print("created")
except ConflictError:
    print("conflict")
"""


def _list_scratch(store: LocalStore) -> list[Path]:
    folder = store.root / ".scratch"
    return list(folder.iterdir()) if folder.exists() else []


def test_a_key_is_created_once_and_again_with_the_same_content(store: LocalStore) -> None:
    store.create("a/b", b"one")
    store.create("a/b", b"one")
    with pytest.raises(ConflictError, match="exists with other content") as caught:
        store.create("a/b", b"two")
    assert "a/b" in str(caught.value)
    stored = store.read("a/b")
    assert stored is not None
    assert (stored.content, stored.etag) == (b"one", digest_bytes(b"one"))
    assert not _list_scratch(store)


def test_a_missing_key_is_none(store: LocalStore) -> None:
    assert store.read("a/b") is None
    store.create("a", b"a file")
    assert store.read("a/b") is None


def test_a_swap_needs_the_present_tag(store: LocalStore) -> None:
    first = store.compare_and_swap("head", b"1", None)
    with pytest.raises(ConflictError, match="changed by somebody else"):
        store.compare_and_swap("head", b"2", None)
    second = store.compare_and_swap("head", b"2", first)
    with pytest.raises(ConflictError):
        store.compare_and_swap("head", b"3", first)
    with pytest.raises(ConflictError):
        store.compare_and_swap("absent", b"3", second)
    stored = store.read("head")
    assert stored is not None
    assert stored.content == b"2"
    assert not _list_scratch(store)


def test_replace_writes_whatever_was_there(store: LocalStore) -> None:
    store.replace("a/note", b"1")
    store.replace("a/note", b"2")
    stored = store.read("a/note")
    assert stored is not None
    assert stored.content == b"2"


def test_files_go_in_and_come_out(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"weights")
    store.upload("a/weights", tmp_path / "in")
    store.upload("a/weights", tmp_path / "in")
    store.download("a/weights", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"weights"
    (tmp_path / "in").write_bytes(b"others!")
    with pytest.raises(ConflictError):
        store.upload("a/weights", tmp_path / "in")
    with pytest.raises(NotFoundError, match="no such key"):
        store.download("a/missing", tmp_path / "out")
    with pytest.raises(NotFoundError, match="no such key"):
        store.download("a/weights/below", tmp_path / "out")


def test_keys_and_children_are_listed_in_order_without_hidden_ones(store: LocalStore) -> None:
    for key in ("t/b/2", "t/b/10", "t/a/1", "u/x"):
        store.create(key, b"")
    store.compare_and_swap("t/c/head", b"", None)
    assert list(store.list_keys("t")) == ["t/a/1", "t/b/10", "t/b/2", "t/c/head"]
    assert store.list_children("t") == ["a", "b", "c"]
    assert list(store.list_keys("nothing")) == []
    assert store.list_children("nothing") == []


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
def test_keys_stay_inside_the_store(store: LocalStore, key: str) -> None:
    with pytest.raises(StoreError, match="is not a key"):
        check_key(key)
    actions: list[Callable[[], Any]] = [
        lambda: store.read(key),
        lambda: store.create(key, b""),
        lambda: store.compare_and_swap(key, b"", None),
        lambda: store.upload(key, Path("/dev/null")),
        lambda: store.download(key, Path("/dev/null")),
        lambda: store.list_children(key),
        lambda: list(store.list_keys(key)),
        lambda: store.locate(key),
        lambda: store.find_path(key),
    ]
    for action in actions:
        with pytest.raises(StoreError, match="is not a key"):
            action()


def test_a_key_has_an_address_and_a_path(store: LocalStore) -> None:
    assert store.locate("a/b") == (store.root / "a" / "b").as_uri()
    assert store.find_path("a/b") == store.root / "a" / "b"


@pytest.mark.parametrize("address", ["{root}", "file://{root}", "file://localhost{root}"])
def test_a_store_is_opened_by_its_address(tmp_path: Path, address: str) -> None:
    store = open_store(address.format(root=tmp_path / "my store").replace("file://", "file://"))
    assert isinstance(store, LocalStore)
    assert store.root == tmp_path / "my store"
    assert open_store((tmp_path / "my store").as_uri()).address == str(tmp_path / "my store")


@pytest.mark.parametrize("address", ["ftp://host/x", "file://host/x", "https://host"])
def test_an_address_that_nothing_serves_is_refused(address: str) -> None:
    with pytest.raises(StoreError, match="no store serves"):
        open_store(address)


def _use(store: LocalStore) -> list[Callable[[], Any]]:
    return [
        lambda: store.create("a/b", b"x"),
        lambda: store.compare_and_swap("a/head", b"x", None),
        lambda: store.upload("a/c", Path("/dev/null")),
        store.check_writable,
    ]


def test_a_file_in_place_of_the_store_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    for action in _use(LocalStore(tmp_path / "store")):
        with pytest.raises(StoreError, match="cannot write") as caught:
            action()
        assert str(tmp_path / "store") in str(caught.value)
        assert "LORRY_STORE" in str(caught.value)


def test_a_file_in_place_of_a_folder_is_one_clear_error(store: LocalStore) -> None:
    store.create("a", b"a file")
    for action in _use(store)[:3]:
        with pytest.raises(StoreError, match="cannot write a/"):
            action()
    with pytest.raises(StoreError, match="cannot list a"):
        store.list_children("a")
    assert not _list_scratch(store)


def test_a_folder_in_place_of_a_file_is_one_clear_error(store: LocalStore) -> None:
    store.create("a/b/c", b"")
    with pytest.raises(StoreError, match="cannot read a/b"):
        store.read("a/b")
    with pytest.raises(StoreError, match="cannot write a/b"):
        store.create("a/b", b"")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_or_read_only_disk_leaves_nothing_behind(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store.create("before", b"x")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", fail)
    monkeypatch.setattr(shutil, "copyfile", fail)
    for action in _use(store):
        with pytest.raises(StoreError, match=os.strerror(number)):
            action()
    monkeypatch.undo()
    assert list(store.list_keys("a")) == []
    assert not _list_scratch(store)
    store.create("a/b", b"x")


def test_a_disk_that_fills_while_flushing_leaves_the_key_as_it_was(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = store.compare_and_swap("head", b"1", None)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="No space left"):
        store.compare_and_swap("head", b"2", tag)
    stored = store.read("head")
    assert stored is not None
    assert stored.content == b"1"


def test_a_full_disk_at_the_other_end_of_a_download_is_named(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("a/b", b"x" * 100)

    def fill_disk(_source: Any, target: Any) -> None:
        target.write(b"x" * 50)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", fill_disk)
    with pytest.raises(StoreError, match="No space left") as caught:
        store.download("a/b", tmp_path / "out")
    assert caught.value.where == str(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_scratch_files_of_killed_writers_are_swept_when_they_are_old(store: LocalStore) -> None:
    store.check_writable()
    old, young = store.root / ".scratch" / "old", store.root / ".scratch" / "young"
    for leftover in (old, young):
        leftover.write_bytes(b"half")
    a_day_ago = time.time() - 25 * 3600
    os.utime(old, (a_day_ago, a_day_ago))
    store.check_writable()
    assert _list_scratch(store) == [young]


def test_no_swap_of_several_processes_is_lost(
    store: LocalStore, run_scripts: Callable[..., list[str]]
) -> None:
    names = ["a", "b", "c", "d"]
    run_scripts(_COUNT_TO_TEN, [(store.root, name) for name in names])
    stored = store.read("counter")
    assert stored is not None
    assert sorted(stored.content.decode().split()) == sorted(
        f"{name}-{turn}" for name in names for turn in range(10)
    )
    assert not _list_scratch(store)


def test_of_several_creators_one_wins(store: LocalStore, run_scripts: Callable[..., list[str]]) -> None:
    outputs = run_scripts(_CREATE_ONCE, [(store.root, content) for content in ("x", "y", "z")])
    assert sorted(output.strip() for output in outputs) == ["conflict", "conflict", "created"]
