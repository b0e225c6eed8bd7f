import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import ConflictError, StoreError
from lorry_registry.files.digests import digest_bytes
from lorry_registry.stores import LocalStore, open_store


def _list_scratch(store: LocalStore) -> list[Path]:
    folder = store.root / ".scratch"
    return list(folder.iterdir()) if folder.exists() else []


def test_a_tag_is_the_digest_and_writes_leave_no_scratch_files(store: LocalStore) -> None:
    store.create("a/b", b"one")
    with pytest.raises(ConflictError):
        store.create("a/b", b"two")
    stored = store.read("a/b")
    assert stored is not None
    assert stored.etag == digest_bytes(b"one")
    tag = store.compare_and_swap("head", b"1", None)
    with pytest.raises(ConflictError):
        store.compare_and_swap("head", b"2", "another")
    assert tag == digest_bytes(b"1")
    assert not _list_scratch(store)


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


def test_a_folder_goes_with_its_last_key(store: LocalStore) -> None:
    store.create("t/a/b/1", b"")
    store.compare_and_swap("t/a/head", b"", None)
    store.create("u/1", b"")
    store.delete("t/a/b/1")
    assert store.list_children("t/a") == ["head"]
    store.delete("t/a/head")
    assert not (store.root / "t").exists()
    (store.root / "u" / "notes").mkdir()
    store.delete("u/1")
    assert (store.root / "u" / "notes").is_dir()
    assert store.root.is_dir()


def test_a_deletion_waits_for_a_swap_that_has_looked(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = store.compare_and_swap("t/head", b"1", None)
    other = threading.Thread(target=store.delete, args=("t/head",))
    read = store.read

    def read_and_let_the_other_begin(key: str) -> Any:
        found = read(key)
        other.start()
        other.join(0.2)
        return found

    monkeypatch.setattr(store, "read", read_and_let_the_other_begin)
    store.compare_and_swap("t/head", b"2", tag)
    monkeypatch.undo()
    other.join()
    assert store.read("t/head") is None


def test_what_may_not_be_deleted_is_one_clear_error(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("t/a", b"x")

    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StoreError, match="cannot delete t/a: Permission denied"):
        store.delete("t/a")
    assert store.read("t/a") is not None


def test_scratch_files_are_unfinished_writes(store: LocalStore) -> None:
    assert list(store.list_unfinished(["t"])) == []
    store.create("t/a", b"")
    leftover = store.root / ".scratch" / "left"
    leftover.write_bytes(b"half")
    (write,) = store.list_unfinished(["t"])
    assert (write.name, write.size) == (".scratch/left", 4)
    store.remove_unfinished(write)
    store.remove_unfinished(write)
    assert not leftover.exists()


def test_the_clock_of_a_folder_that_takes_no_writes_is_the_machines(store: LocalStore) -> None:
    store.root.touch()
    assert abs((datetime.now(UTC) - store.read_clock()).total_seconds()) < 60


def test_links_pipes_and_hidden_files_are_no_entries(store: LocalStore) -> None:
    store.create("t/a", b"")
    (store.root / "t" / "link").symlink_to("a")
    os.mkfifo(store.root / "t" / "pipe")
    (store.root / "t" / ".hidden").touch()
    assert [entry.key for entry in store.list_entries("t")] == ["t/a"]
