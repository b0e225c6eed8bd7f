"""A step that is killed, and started again with an empty disk and nothing but the store."""

import json
import pickle
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch

from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.runtime.outcomes import Outcome, RunRecord
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.files.digests import canonical_json, digest_bytes
from lorry_registry.stores.s3_store import S3Store
from lorry_registry.tasks.task_spec import TaskSpec

from fixtures.s3_faults import FaultProxy
from fixtures.s3_server import S3Server

# Runs the step from its component's arguments, and kills itself at a moment that an argument names.
_STEP = """
import json, os, signal, sys
given = json.loads(sys.argv[1])
os.environ.update(given["environment"])
os.chdir(given["folder"])
from lorry_components.steps.finetune import entry
from lorry_components.training.checkpoints import stored_checkpoints
from lorry_components.training.callbacks import ProgressCallback
from lorry_registry.stores.s3_store import S3Store

def die_at(moment):
    if moment == given["moment"]:
        os.kill(os.getpid(), signal.SIGKILL)

def hook(name, describe):
    original = getattr(S3Store, name)
    def hooked(self, key, *arguments):
        place = key.split("/")
        step = place[2].split(".")[0].removeprefix("checkpoint-") if place[0] == "checkpoints" else ""
        result = original(self, key, *arguments)
        die_at(f"{describe} {step} {place[-1]}")
        return result
    setattr(S3Store, name, hooked)

hook("upload", "uploaded")
hook("create", "uploaded")
hook("delete", "removed")

on_step_end = ProgressCallback.on_step_end
def end_step(self, args, state, control, **others):
    on_step_end(self, args, state, control, **others)
    die_at(f"step {state.global_step}")
ProgressCallback.on_step_end = end_step

entry.main(**given["arguments"], metadata={})
"""

_DROPOUT = {"hidden_dropout": 0.1}
_PLAIN: dict[str, Any] = {"train": {"epochs": 3, **_DROPOUT}}
_STOPPING: dict[str, Any] = {
    "train": {"epochs": 12, "learning_rate": 0.05, "early_stopping": {"patience": 4}, **_DROPOUT}
}


@dataclass
class Node:
    """A machine with nothing on its disk but the prepared data."""

    folder: Path

    @property
    def weights(self) -> bytes:
        return (self.folder / "candidate" / "adapter" / "adapter_model.safetensors").read_bytes()


class Cluster:
    """Machines that share a store."""

    def __init__(
        self,
        root: Path,
        server: S3Server,
        store: S3Store,
        start: Callable[..., Any],
        data: Callable[[str], Path],
    ) -> None:
        self.root = root
        self.store = store
        self.endpoint: str | None = None
        self._server = server
        self._start = start
        self._data = data

    def start(
        self, name: str, spec: TaskSpec, *, moment: str = "never", run: str = "run-1", **arguments: Any
    ) -> Any:
        node = Node(self.root / name)
        node.folder.mkdir()
        given = {
            "environment": self._server.list_variables(self.endpoint)
            | {"LORRY_HOME": str(node.folder / "home")},
            "folder": str(node.folder),
            "moment": moment,
            "arguments": {
                "task": spec.model_dump_json(),
                "run": run,
                "store": self.store.address,
                "tracking_uri": f"sqlite:///{self.root}/mlflow.db",
                "checkpoints": "store",
                "data": str(self._data(spec.name.removeprefix("tiny-"))),
                "candidate": str(node.folder / "candidate"),
                **arguments,
            },
        }
        return self._start(_STEP, json.dumps(given)), node

    def run(self, name: str, spec: TaskSpec, **arguments: Any) -> Node:
        child, node = self.start(name, spec, **arguments)
        assert child.wait() == 0, child.log.read_text()
        return node

    def read_outcome(self, spec: TaskSpec, run: str = "run-1") -> Outcome:
        (outcome,) = RunRecord(self.store, run).read(spec.name)
        return outcome

    def exchange(self, name: str, content: bytes) -> bytes:
        """Put another file into the newest checkpoint, with the digests right, and return the former one."""
        key = max(key for key in self.store.list_keys("checkpoints") if key.endswith(f"/{name}"))
        listing = f"{key.rpartition('/')[0]}/complete.json"
        former, stored = self.store.read(key), self.store.read(listing)
        assert former is not None
        assert stored is not None
        contents = json.loads(stored.content)
        for entry in contents["files"]:
            if entry["name"] == name:
                entry |= {"size": len(content), "sha256": digest_bytes(content)}
        for each, written in ((key, content), (listing, canonical_json(contents))):
            self.store.delete(each)
            self.store.create(each, written)
        return former.content

    def count_mlflow_runs(self) -> int:
        client = mlflow.MlflowClient(f"sqlite:///{self.root}/mlflow.db")
        experiments = [found.experiment_id for found in client.search_experiments()]
        return len(client.search_runs(experiments))

    def list_checkpoints(self) -> set[str]:
        """Return the names of the files of checkpoints, without what is different in each upload."""
        keys = [key.split("/") for key in self.store.list_keys("checkpoints")]
        return {f"{folder.split('.')[0]}/{name}" for _, _, folder, name in keys}


@pytest.fixture
def cluster(
    tmp_path: Path,
    s3_server: S3Server,
    s3_store: S3Store,
    start_child: Callable[..., Any],
    tiny_data: Callable[[str], Path],
    empty_mlflow: Path,
) -> Cluster:
    (tmp_path / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    return Cluster(tmp_path, s3_server, s3_store, start_child, tiny_data)


MakeSpec = Callable[..., TaskSpec]
Undisturbed = Callable[[str], tuple[TaskSpec, Node]]


@pytest.fixture
def undisturbed(
    make_spec: MakeSpec, tiny_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    """Return a function from a configuration to its task and a training of it that nobody killed."""

    def find(name: str) -> tuple[TaskSpec, Node]:
        spec = make_spec(**{"plain": _PLAIN, "stopping": _STOPPING}[name])
        node = Node(tmp_path_factory.getbasetemp() / f"undisturbed-{name}")
        if not node.folder.is_dir():
            data = tiny_data(spec.name.removeprefix("tiny-"))
            places = {"checkpoints": node.folder / "checkpoints"}
            finetune(resolve_task(spec), data, node.folder / "candidate", **places)
        return spec, node

    return find


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "moment", "resumed_from"),
    [
        # The upload of a checkpoint goes on while training does.
        ("plain", "uploaded 8 optimizer.pt", {6}),
        ("plain", "removed 6 complete.json", {8}),
        ("plain", "uploaded 18 complete.json", {18}),
        ("stopping", "step 26", {18, 24}),
    ],
)
def test_a_killed_step_ends_with_the_same_weights_elsewhere(
    cluster: Cluster, undisturbed: Undisturbed, name: str, moment: str, resumed_from: set[int]
) -> None:
    spec, expected = undisturbed(name)
    child, dead = cluster.start("killed", spec, moment=moment)
    assert child.wait() == -signal.SIGKILL, child.log.read_text()
    assert not (dead.folder / "candidate" / "adapter").exists()
    again = cluster.run("again", spec)
    outcome = cluster.read_outcome(spec)
    assert outcome.status == "done", outcome
    assert outcome.details["resumed_from"] in resumed_from
    assert again.weights == expected.weights
    assert cluster.count_mlflow_runs() == 1
    if resumed_from != {18}:
        # What is there in the end is the last checkpoint, and the best one where that counts.
        complete = [name for name in cluster.list_checkpoints() if name.endswith("complete.json")]
        assert len(complete) == (2 if name == "stopping" else 1)


@pytest.mark.slow
def test_a_forced_run_begins_anew_and_its_retry_goes_on(cluster: Cluster, undisturbed: Undisturbed) -> None:
    spec, expected = undisturbed("plain")
    cluster.run("first", spec)
    assert "checkpoint-18/complete.json" in cluster.list_checkpoints()
    # It would not come to step 8 if it went on from there.
    child, _ = cluster.start("forced", spec, run="run-2", force=True, moment="uploaded 8 complete.json")
    assert child.wait() == -signal.SIGKILL, child.log.read_text()
    again = cluster.run("again", spec, run="run-2", force=True)
    assert cluster.read_outcome(spec, "run-2").details["resumed_from"] == 8
    assert again.weights == expected.weights


class _Planted:
    """What a pickle can do to whoever loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def write_trap(path: Path, trap: Path, *, by_torch: bool) -> bytes:
    """Return a file that makes whoever loads it in the usual way create another one."""
    if by_torch:
        torch.save({"state": _Planted(trap)}, path)
    else:
        path.write_bytes(pickle.dumps(_Planted(trap)))
    torch.load(path, weights_only=False) if by_torch else pickle.loads(path.read_bytes())  # noqa: S301
    trap.unlink()
    return path.read_bytes()


@pytest.mark.slow
def test_a_planted_pickle_is_not_run(cluster: Cluster, make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec(train={"epochs": None, "steps": 10})
    child, _ = cluster.start("killed", spec, moment="uploaded 8 complete.json")
    assert child.wait() == -signal.SIGKILL, child.log.read_text()
    trap = tmp_path / "sprung"
    for name, by_torch in (("optimizer.pt", True), ("scheduler.pt", False), ("rng_state.pth", True)):
        planted = write_trap(tmp_path / "planted", trap, by_torch=by_torch)
        former = cluster.exchange(name, planted)
        cluster.run(f"after-{name}", spec)
        failure = cluster.read_outcome(spec).failure
        assert failure is not None
        assert failure.error == "TrainingError"
        assert "a file of it holds something else than numbers" in failure.message
        assert not trap.exists()
        cluster.exchange(name, former)
    cluster.run("again", spec)
    assert cluster.read_outcome(spec).details["resumed_from"] == 8


@pytest.mark.slow
def test_a_training_outlasts_a_store_that_is_away(
    cluster: Cluster,
    undisturbed: Undisturbed,
    faults: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, expected = undisturbed("plain")
    cluster.endpoint = faults.endpoint
    refused: list[str] = []

    def choose(method: str, path: str) -> str:
        if method == "PUT" and re.search(r"/checkpoint-[246]\.", path):
            refused.append(path)
            return "denied"
        return ""

    monkeypatch.setattr(faults, "choose", choose)
    node = cluster.run("away", spec)
    assert cluster.read_outcome(spec).status == "done"
    assert node.weights == expected.weights
    assert len(refused) == 3
    assert "checkpoint-18/complete.json" in cluster.list_checkpoints()
