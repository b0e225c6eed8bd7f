"""A file is hashed once, whoever asks, and again as soon as it may have changed."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.files.digests import digest_bytes, digest_file


class Hasher:
    """Hashes files and remembers which."""

    def __init__(self) -> None:
        self.hashed: list[str] = []

    def __call__(self, path: Path) -> str:
        self.hashed.append(path.name)
        return digest_file(path)


@pytest.fixture
def hasher() -> Hasher:
    return Hasher()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "digests"


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all files be old enough for their stamps to be trusted."""
    now = time.time_ns
    monkeypatch.setattr("lorry_registry.files.digest_cache.time.time_ns", lambda: now() + 10_000_000_000)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"some weights")
    return path


def list_entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


@pytest.mark.usefixtures("later")
def test_a_file_is_hashed_once(folder: Path, weights: Path, hasher: Hasher) -> None:
    cache = DigestCache(folder, hash_file=hasher)
    assert cache.digest_file(weights) == digest_bytes(b"some weights")
    assert cache.digest_file(weights) == digest_bytes(b"some weights")
    # Another process opens the same folder.
    assert DigestCache(folder, hash_file=hasher).digest_file(weights) == digest_bytes(b"some weights")
    assert hasher.hashed == ["weights"]
    (entry,) = list_entries(folder)
    assert json.loads(entry.read_bytes())["path"] == str(weights)


@pytest.mark.usefixtures("later")
def test_a_relative_path_is_the_same_file(
    folder: Path, weights: Path, hasher: Hasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DigestCache(folder, hash_file=hasher)
    cache.digest_file(weights)
    monkeypatch.chdir(weights.parent)
    cache.digest_file(Path("weights"))
    assert hasher.hashed == ["weights"]


def _grow(path: Path) -> None:
    path.write_bytes(b"some more weights")


def _change_and_set_the_time_back(path: Path) -> None:
    stat = path.stat()
    path.write_bytes(b"evil weights")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _replace(path: Path) -> None:
    stat = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"evil weights")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("change", [_grow, _change_and_set_the_time_back, _replace])
def test_a_file_that_changed_is_hashed_again(
    folder: Path, weights: Path, hasher: Hasher, change: Callable[[Path], None]
) -> None:
    cache = DigestCache(folder, hash_file=hasher)
    cache.digest_file(weights)
    # Two changes in one tick of the kernel's clock are told apart by nobody.
    time.sleep(0.02)
    change(weights)
    assert cache.digest_file(weights) == digest_bytes(weights.read_bytes())
    assert hasher.hashed == ["weights", "weights"]


@pytest.mark.usefixtures("later")
def test_a_link_that_leads_elsewhere_is_another_file(folder: Path, weights: Path, hasher: Hasher) -> None:
    link = weights.with_name("link")
    link.symlink_to(weights)
    cache = DigestCache(folder, hash_file=hasher)
    cache.digest_file(link)
    other = weights.with_name("other")
    other.write_bytes(b"evil weights")
    link.unlink()
    link.symlink_to(other)
    assert cache.digest_file(link) == digest_bytes(b"evil weights")


def test_a_file_that_has_just_been_written_is_hashed_again(
    folder: Path, weights: Path, hasher: Hasher
) -> None:
    # Another change might have the same time stamp.
    cache = DigestCache(folder, hash_file=hasher)
    for _ in range(2):
        assert cache.digest_file(weights) == digest_bytes(b"some weights")
    assert hasher.hashed == ["weights", "weights"]
    assert list_entries(folder) == []


@pytest.mark.usefixtures("later")
def test_a_file_that_changes_while_it_is_hashed_is_not_kept(folder: Path, weights: Path) -> None:
    def hash_slowly(path: Path) -> str:
        digest = digest_file(path)
        time.sleep(0.02)
        path.write_bytes(b"evil weights")
        return digest

    DigestCache(folder, hash_file=hash_slowly).digest_file(weights)
    assert list_entries(folder) == []


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("damage", ["empty", "cut", "digest", "path", "extra", "list", "folder"])
def test_a_damaged_entry_is_computed_again(folder: Path, weights: Path, hasher: Hasher, damage: str) -> None:
    cache = DigestCache(folder, hash_file=hasher)
    cache.digest_file(weights)
    (entry,) = list_entries(folder)
    content = entry.read_bytes()
    document = json.loads(content)
    damaged = {
        "empty": b"",
        "cut": content[:-20],
        "digest": json.dumps(document | {"digest": "sha256:" + "0" * 64}).encode(),
        "path": json.dumps(document | {"path": "/elsewhere"}).encode(),
        "extra": json.dumps(document | {"more": 1}).encode(),
        "list": b"[]",
    }
    if damage == "folder":
        entry.unlink()
        entry.mkdir()
    else:
        entry.write_bytes(damaged[damage])
    assert cache.digest_file(weights) == digest_bytes(b"some weights")
    assert hasher.hashed == ["weights", "weights"]
    if damage != "folder":
        assert entry.read_bytes() == content


@pytest.mark.usefixtures("later")
def test_a_folder_that_cannot_be_written_makes_it_slower_and_not_wrong(
    tmp_path: Path, weights: Path, hasher: Hasher
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = DigestCache(tmp_path / "file" / "digests", hash_file=hasher)
    for _ in range(2):
        assert cache.digest_file(weights) == digest_bytes(b"some weights")
    assert hasher.hashed == ["weights", "weights"]


@pytest.mark.usefixtures("later")
def test_the_least_recently_used_entries_are_removed(folder: Path, tmp_path: Path, hasher: Hasher) -> None:
    paths = [tmp_path / f"file{number}" for number in range(6)]
    cache = DigestCache(folder, hash_file=hasher)
    for age, path in enumerate(paths):
        path.write_text(path.name)
        cache.digest_file(path)
        (newest,) = (entry for entry in list_entries(folder) if str(path) in entry.read_text())
        os.utime(newest, (time.time() - 1000 + age,) * 2)
    leftover = folder / ".killed"
    leftover.write_text("half an ent")
    os.utime(leftover, (time.time() - 9999,) * 2)
    # The oldest is used once more, and stays.
    cache.digest_file(paths[0])
    hasher.hashed.clear()
    small = DigestCache(folder, limit=3, hash_file=hasher)
    one_more = tmp_path / "one more"
    one_more.write_text("one more")
    small.digest_file(one_more)
    kept = {json.loads(entry.read_bytes())["path"] for entry in list_entries(folder)}
    assert kept == {str(path) for path in (paths[0], paths[4], paths[5], one_more)}
    assert not leftover.exists()


_PROGRAM = """
import sys, time
from pathlib import Path
from lorry_registry.files import digest_cache
from lorry_registry.files.digests import digest_file

folder, path, log = map(Path, sys.argv[1:])
digest_cache._SETTLED_NS = -10**12

def hash_slowly(path):
    with log.open("a") as stream:
        stream.write("hashed\\n")
    time.sleep(1)
    return digest_file(path)

print("ready", flush=True)
sys.stdin.readline()
print(digest_cache.DigestCache(folder, hash_file=hash_slowly).digest_file(path))
"""


def test_processes_that_ask_at_the_same_time_hash_once(
    folder: Path, weights: Path, tmp_path: Path, start_script: Callable[..., Any]
) -> None:
    log = tmp_path / "log"
    processes = [start_script(_PROGRAM, folder, weights, log) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = {process.communicate()[0].strip() for process in processes}
    assert answers == {digest_bytes(b"some weights")}
    assert log.read_text() == "hashed\n"
