"""A small, valid adapter without torch, and registries that hold some."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lorry_registry.adapters.stored_adapters import adapter_key
from lorry_registry.cli import COMMANDS, LazyGroup
from lorry_registry.ledger.events import Event
from lorry_registry.manifest import Manifest
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

from fixtures.adapters import AdapterFolder, enlarge_adapter, enroll, write_adapter


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., AdapterFolder]:
    """Return a function that writes a valid adapter folder.

    Keywords: ``task``, ``seed`` (another seed, another id), ``value`` (of the primary metric), ``folder``,
    and any field of the manifest.
    """

    def make(
        *, folder: Path | None = None, task: str = "reviews", seed: int = 0, **changes: Any
    ) -> AdapterFolder:
        return write_adapter(
            folder or tmp_path / "adapters" / f"{task}-{seed}", task=task, seed=seed, **changes
        )

    return make


@pytest.fixture
def register_adapter(
    registry: Registry, make_adapter: Callable[..., AdapterFolder]
) -> Callable[..., tuple[AdapterFolder, Event]]:
    """Return a function that publishes an adapter and registers it, promoted unless told otherwise."""

    def register(
        task: str = "reviews", seed: int = 0, *, promote: bool = True, **changes: Any
    ) -> tuple[AdapterFolder, Event]:
        adapter = make_adapter(task=task, seed=seed, **changes)
        reasons = ("pearson 0.850 is at least 0.700",) if promote else ("pearson 0.600 is below 0.700",)
        return adapter, enroll(registry, adapter, promote=promote, reasons=reasons, by="the pipeline")

    return register


@pytest.fixture
def stored_file(store: LocalStore) -> Callable[[str, str], Path]:
    """Return a function from an adapter id and a file name to the file in the store."""

    def find(adapter_id: str, name: str) -> Path:
        return store.root / adapter_key(adapter_id) / name

    return find


@pytest.fixture
def start_script() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Return a function that starts Python code in a process of its own, which is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_scripts(start_script: Callable[..., "subprocess.Popen[str]"]) -> Callable[..., list[str]]:
    """Return a function that runs one script several times at once and returns what each printed."""

    def run(code: str, arguments: list[tuple[object, ...]]) -> list[str]:
        processes = [start_script(code, *each) for each in arguments]
        outputs = [process.communicate(timeout=300) for process in processes]
        for process, (_, errors) in zip(processes, outputs, strict=True):
            assert process.returncode == 0, errors
        return [output for output, _ in outputs]

    return run


@pytest.fixture
def index(mlflow_uri: str, tmp_path: Path) -> MlflowIndex:
    return MlflowIndex(mlflow_uri, tmp_path / "artifacts")


@pytest.fixture
def client(mlflow_uri: str) -> Any:
    """Return MLflow's own client, to look at what was written."""
    from mlflow.tracking import MlflowClient

    return MlflowClient(mlflow_uri)


@pytest.fixture
def lorry(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs a command line on the test's store, in a folder of its own."""
    group = LazyGroup(name="lorry", lazy_commands=COMMANDS)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LORRY_STORE", store.address)
    monkeypatch.setenv("TZ", "UTC")
    for variable in ("LORRY_HOME", "MLFLOW_TRACKING_URI", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    time.tzset()

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(group, list(arguments))
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return run


@pytest.fixture
def two_tasks(register_adapter: Callable[..., Any]) -> dict[str, Any]:
    """Three versions of reviews, of which the second is champion; films, whose only version was refused."""
    adapters = {f"reviews v{seed}": register_adapter(seed=seed)[0] for seed in (1, 2)}
    adapters["reviews v3"] = register_adapter(seed=3, promote=False, value=0.6)[0]
    adapters["films v1"] = register_adapter("films", promote=False, value=0.6)[0]
    return adapters


@pytest.fixture
def make_large() -> Callable[[AdapterFolder], Manifest]:
    """Return a function that gives an adapter weights of 64 MiB and returns its new manifest."""
    return enlarge_adapter
