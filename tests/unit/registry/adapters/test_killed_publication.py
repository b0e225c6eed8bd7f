"""Publishing, registering and fetching, killed before, between and within all their writes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.adapters.stored_adapters import adapter_key
from lorry_registry.adapters.verification import verify_adapter
from lorry_registry.errors import AdapterRejectedError
from lorry_registry.manifest import MANIFEST_NAME
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

# Runs the whole job again and again in children, each killed one step later than the one before, each on a
# store of its own, until one comes through. Prints how many were killed.
_DRIVER = """
import os, shutil, signal, sys
from pathlib import Path
from lorry_registry.manifest import MANIFEST_NAME, Manifest
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

folder, root = Path(sys.argv[1]), Path(sys.argv[2])
manifest = Manifest.parse((folder / MANIFEST_NAME).read_bytes(), where="x")
countdown = 0


def tick():
    global countdown
    countdown -= 1
    if countdown == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def hook(owner, name):
    original = getattr(owner, name)

    def step(*arguments, **options):
        tick()
        result = original(*arguments, **options)
        tick()
        return result

    setattr(owner, name, step)


def copy_half(source, target):
    Path(target).open("wb").write(Path(source).read_bytes()[:40])
    tick()
    return original_copy(source, target)


def write_half(path, content):
    with path.open("wb") as stream:
        stream.write(content[:40])
        stream.flush()
        tick()
        return stream.write(content[40:])


original_copy, shutil.copyfile, Path.write_bytes = shutil.copyfile, copy_half, write_half
for owner, name in (
    (os, "link"), (os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "rename"), (shutil, "copyfile"),
    (shutil, "copyfileobj"), (Path, "write_bytes"), (Path, "mkdir"),
):
    hook(owner, name)

for limit in range(1, 1000):
    child = os.fork()
    if child == 0:
        countdown = limit
        registry = Registry(LocalStore(root / str(limit) / "store"), root / str(limit) / "cache")
        adapter_id = registry.publish(folder, manifest)
        registry.register("reviews", adapter_id, promote=True, judged_champion=None, reasons=("first",))
        registry.fetch(adapter_id)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(limit)
        break
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


def test_an_adapter_is_there_whole_or_not_at_all_and_the_next_run_succeeds(
    killed: Path, make_adapter: Callable[..., Any], run_scripts: Callable[..., list[str]]
) -> None:
    adapter, other = make_adapter(seed=1), make_adapter(seed=2)
    (count,) = run_scripts(_DRIVER, [(adapter.path, killed)])
    assert int(count) > 50
    seen = set()
    for limit in range(1, int(count)):
        folder = killed / str(limit)
        registry = Registry(LocalStore(folder / "store"), folder / "cache")
        seen.add(_check_remains(registry, folder, adapter.adapter_id))
        _run_again(registry, adapter)
        registry.publish(other.path, other.manifest)
        assert (
            registry.register(
                "reviews", other.adapter_id, promote=True, judged_champion=1, reasons=()
            ).version
            == 2
        )
        assert all(error is None for _, error in registry.verify_task("reviews"))
        shutil.rmtree(folder)
    # The kills have met every state that there is.
    assert seen == {"absent", "stored", "registered", "fetched"}


def _check_remains(registry: Registry, folder: Path, adapter_id: str) -> str:
    stored = folder / "store" / adapter_key(adapter_id)
    exists = (stored / MANIFEST_NAME).exists()
    if exists:
        verify_adapter(stored, expected_id=adapter_id)
    champion = registry.ledger.read_state("reviews").champion
    if champion is None:
        return "stored" if exists else "absent"
    assert exists
    assert champion.adapter_id == adapter_id
    assert [event.version for event in registry.ledger.read_history("reviews")] == [1]
    cached = folder / "cache" / adapter_id.removeprefix("sha256:")
    if not cached.exists():
        return "registered"
    verify_adapter(cached, expected_id=adapter_id)
    return "fetched"


def _run_again(registry: Registry, adapter: Any) -> None:
    registry.store.check_writable()
    assert registry.publish(adapter.path, adapter.manifest) == adapter.adapter_id
    event = registry.register(
        "reviews", adapter.adapter_id, promote=True, judged_champion=None, reasons=("again",)
    )
    assert event.version == 1
    assert registry.resolve("reviews").adapter_id == adapter.adapter_id
    try:
        folder = registry.fetch(adapter.adapter_id)
    except AdapterRejectedError as error:
        pytest.fail(str(error))
    assert (folder / MANIFEST_NAME).read_bytes() == adapter.manifest.serialize()
