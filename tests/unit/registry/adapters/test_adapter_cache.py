"""The cache of adapters, which processes share, fill, outgrow, and are killed in."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.adapters.verification import verify_adapter
from lorry_registry.manifest import MANIFEST_NAME, WEIGHTS_NAME
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

# Fetches an adapter; notes each download in a file, and takes its time over it. Then does as it is told.
_FETCH = """
import os, signal, sys, time
from pathlib import Path
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

store, cache, adapter_id, log, moment, limit = sys.argv[1:]
download = LocalStore.download

def noting(self, key, target):
    with open(log, "a") as stream:
        stream.write(key.rpartition("/")[2] + "\\n")
    time.sleep(0.1)
    if moment == key.rpartition("/")[2]:
        target.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    download(self, key, target)

LocalStore.download = noting
registry = Registry(LocalStore(Path(store)), Path(cache), cache_bytes=int(limit))
print("ready", flush=True)
sys.stdin.readline()
print(registry.fetch(adapter_id), flush=True)
sys.stdin.readline()
"""

Make = Callable[..., Any]


class Reader:
    """A process that fetches an adapter and uses it until it is told to end."""

    def __init__(self, process: Any) -> None:
        self._process = process
        process.stdout.readline()

    def begin(self) -> None:
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def fetch(self) -> Path:
        self.begin()
        return self.find()

    def find(self) -> Path:
        return Path(self._process.stdout.readline().strip())

    def end(self) -> int:
        with contextlib.suppress(BrokenPipeError):
            self.begin()
        code: int = self._process.wait(30)
        return code


@pytest.fixture
def start_reader(
    store: LocalStore, tmp_path: Path, start_script: Callable[..., Any]
) -> Callable[..., Reader]:
    def start(adapter_id: str, *, moment: str = "never", limit: int = 1 << 30) -> Reader:
        places = (store.root, tmp_path / "cache", adapter_id, tmp_path / "log")
        return Reader(start_script(_FETCH, *places, moment, limit))

    return start


@pytest.fixture
def publish(registry: Registry, make_adapter: Make) -> Callable[..., str]:
    def make(seed: int) -> str:
        adapter = make_adapter(seed=seed)
        adapter_id: str = registry.publish(adapter.path, adapter.manifest)
        return adapter_id

    return make


def list_cached(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if re.fullmatch("[0-9a-f]{64}", path.name)}


def list_leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.name.endswith(".partial")]


def name(adapter_id: str) -> str:
    return adapter_id.removeprefix("sha256:")


def age(folder: Path, hours: int) -> None:
    """Make it seem that an adapter was last used some hours ago."""
    then = time.time() - hours * 3600
    os.utime(folder, (then, then))


def measure(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_processes_that_fetch_the_same_adapter_download_it_once(
    start_reader: Callable[..., Reader], publish: Callable[..., str], tmp_path: Path
) -> None:
    adapter_id = publish(1)
    readers = [start_reader(adapter_id) for _ in range(4)]
    for reader in readers:
        reader.begin()
    (folder,) = {reader.find() for reader in readers}
    verify_adapter(folder, expected_id=adapter_id)
    downloaded = (tmp_path / "log").read_text().split()
    assert len(downloaded) == len(set(downloaded)) == 4
    assert [reader.end() for reader in readers] == [0] * 4


@pytest.mark.parametrize("moment", [WEIGHTS_NAME, MANIFEST_NAME])
def test_a_killed_download_leaves_no_adapter_and_is_tidied_up(
    start_reader: Callable[..., Reader],
    publish: Callable[..., str],
    registry: Registry,
    tmp_path: Path,
    moment: str,
) -> None:
    adapter_id, cache = publish(1), tmp_path / "cache"
    reader = start_reader(adapter_id, moment=moment)
    reader.begin()
    assert reader.end() == -signal.SIGKILL
    assert list_cached(cache) == set()
    assert len(list_leftovers(cache)) == 1
    # By the download of another adapter as well.
    registry.fetch(publish(2))
    assert list_leftovers(cache) == []
    verify_adapter(registry.fetch(adapter_id), expected_id=adapter_id)


def test_what_another_process_downloads_now_is_no_leftover(
    start_reader: Callable[..., Reader], publish: Callable[..., str], registry: Registry, tmp_path: Path
) -> None:
    slow, other, cache = publish(1), publish(2), tmp_path / "cache"
    reader = start_reader(slow)
    reader.begin()
    deadline = time.monotonic() + 30
    while not (cache.is_dir() and list_leftovers(cache)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    registry.fetch(other)
    verify_adapter(reader.find(), expected_id=slow)


def test_beyond_its_size_the_least_recently_used_go(
    store: LocalStore, publish: Callable[..., str], tmp_path: Path
) -> None:
    ids = [publish(seed) for seed in (1, 2, 3, 4)]
    cache = tmp_path / "cache"
    size = measure(Registry(store, cache).fetch(ids[0]))
    for hours, adapter_id in zip((5, 9, 7), ids, strict=False):
        age(Registry(store, cache).fetch(adapter_id), hours)
    # It is used again, so another one is the oldest now.
    Registry(store, cache).fetch(ids[1])
    Registry(store, cache, cache_bytes=size * 3 + 100).fetch(ids[3])
    assert list_cached(cache) == {name(ids[0]), name(ids[1]), name(ids[3])}
    # One that is larger than all there may be is used all the same.
    folder = Registry(store, cache, cache_bytes=1).fetch(ids[2])
    verify_adapter(folder, expected_id=ids[2])
    assert list_cached(cache) == {name(ids[2])}
    assert list_leftovers(cache) == []
    # The locks of what is gone are gone as well.
    assert {path.stem for path in (cache / "locks").iterdir()} == {name(ids[2])}


def test_what_a_process_uses_stays(
    start_reader: Callable[..., Reader],
    publish: Callable[..., str],
    store: LocalStore,
    tmp_path: Path,
) -> None:
    used, unused, third = publish(1), publish(2), publish(3)
    cache = tmp_path / "cache"
    reader = start_reader(used)
    age(reader.fetch(), 9)
    Registry(store, cache).fetch(unused)
    registry = Registry(store, cache, cache_bytes=1)
    mine = registry.fetch(third)
    assert list_cached(cache) == {name(used), name(third)}
    verify_adapter(cache / name(used), expected_id=used)
    assert reader.end() == 0
    registry.fetch(unused)
    # The other process has ended; this one still uses both of its own.
    assert list_cached(cache) == {name(third), name(unused)}
    verify_adapter(mine, expected_id=third)


def test_a_damaged_copy_is_replaced_while_others_use_it(
    start_reader: Callable[..., Reader], publish: Callable[..., str], registry: Registry
) -> None:
    adapter_id = publish(1)
    reader = start_reader(adapter_id)
    folder = reader.fetch()
    (folder / WEIGHTS_NAME).write_bytes(b"planted")
    assert registry.fetch(adapter_id) == folder
    verify_adapter(folder, expected_id=adapter_id)
    (folder / WEIGHTS_NAME).write_bytes(b"planted")
    assert registry.fetch(adapter_id) == folder
    verify_adapter(folder, expected_id=adapter_id)


def test_a_cache_without_locks_still_gives_the_right_adapter(
    publish: Callable[..., str], store: LocalStore, tmp_path: Path
) -> None:
    adapter_id, cache = publish(1), tmp_path / "cache"
    cache.mkdir()
    # Nothing can be opened below it; a read-only image or a file system without locks is no different.
    (cache / "locks").write_text("no folder")
    folder = Registry(store, cache).fetch(adapter_id)
    verify_adapter(folder, expected_id=adapter_id)
    (folder / WEIGHTS_NAME).write_bytes(b"planted")
    verify_adapter(Registry(store, cache, cache_bytes=1).fetch(adapter_id), expected_id=adapter_id)


def test_what_is_no_adapter_is_left_alone(
    publish: Callable[..., str], store: LocalStore, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    (cache / "notes").mkdir(parents=True)
    (cache / ("0" * 64)).write_text("a file")
    Registry(store, cache, cache_bytes=1).fetch(publish(1))
    assert (cache / "notes").is_dir()
    assert (cache / ("0" * 64)).is_file()
