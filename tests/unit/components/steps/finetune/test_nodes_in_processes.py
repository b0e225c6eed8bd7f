"""The whole way over several nodes: a step, an API server over HTTP, and nodes that are real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from lorry_components.progress import ignore_progress
from lorry_components.steps.finetune.multi_node.train_job_settings import TrainJobSettings
from lorry_components.steps.finetune.step import finetune
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.distributed.process_group import finetune_in_processes
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import TaskSpec

from fixtures.kubernetes_server import TRAINJOBS, JobController, KubernetesServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 200
# What the test waits for at most, in seconds.
PATIENCE = 600


class Cluster:
    """A step and its nodes, each a process on this machine."""

    def __init__(self, server: KubernetesServer, folder: Path, data: Path, spec: TaskSpec) -> None:
        self.server = server
        self.store = LocalStore(folder / "store")
        self.candidate = folder / "candidate"
        inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        common = inherited | {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "LORRY_HOME": str(folder / "home"),
        }
        self.controller = JobController(server, common, sys.executable)
        settings = TrainJobSettings(
            runtime="torch-distributed",
            image="registry.example/lorry",
            nodes=2,
            resources={"cpu": "1", "memory": "4Gi"},
            user=1,
            group=1,
            home=str(folder),
            deadline_seconds=PATIENCE,
            start_seconds=PATIENCE,
        )
        self.environment = common | {
            "KUBECONFIG": str(server.write_kubeconfig(folder / "kubeconfig")),
            "LORRY_TRAIN_JOB": settings.model_dump_json(exclude_defaults=True),
        }
        self.arguments: dict[str, Any] = {
            "task": spec.model_dump_json(),
            "run": "run-1",
            "store": str(folder / "store"),
            "tracking_uri": f"sqlite:///{folder}/mlflow.db",
            "checkpoints": "store",
            "data": str(data),
            "candidate": str(self.candidate),
            "metadata": {},
        }

    def start(self) -> "subprocess.Popen[str]":
        code = (
            "import json, logging, sys\n"
            "logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
            "from lorry_components.steps.finetune.entry import main\n"
            "print(main(**json.loads(sys.argv[1])))"
        )
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, json.dumps(self.arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, happened: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < until, self.server.logs
            time.sleep(0.05)

    def has_checkpoint(self) -> bool:
        return any(key.endswith("complete.json") for key in self.store.list_keys("checkpoints"))

    def find_node(self, number: int) -> "subprocess.Popen[str]":
        (process,) = (one for (_, which), one in self.controller.processes.items() if which == number)
        return process

    def read_outcome(self) -> dict[str, Any]:
        stored = self.store.read("runs/run-1/tasks/tiny-regression/finetune.json")
        assert stored is not None
        outcome: dict[str, Any] = json.loads(stored.content)
        return outcome


@pytest.fixture
def make_cluster(
    kubernetes_server: KubernetesServer,
    tiny_data: Callable[[str], Path],
    make_spec: Callable[..., TaskSpec],
    tmp_path: Path,
) -> Iterator[Callable[..., Cluster]]:
    made: list[Cluster] = []

    def make(**train: Any) -> Cluster:
        spec = make_spec(
            method="lora", train={"epochs": None, "steps": STEPS} | train, resources={"nodes": 2}
        )
        cluster = Cluster(kubernetes_server, tmp_path, tiny_data("regression"), spec)
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.controller.stop()


@pytest.mark.exhaustive
def test_a_lost_node_and_a_lost_step_change_nothing(
    make_cluster: Callable[..., Cluster], tmp_path: Path
) -> None:
    cluster = make_cluster()
    first = cluster.start()
    cluster.wait_for(cluster.has_checkpoint)
    first.kill()
    first.communicate()
    # With its children, as a pod ends.
    os.killpg(cluster.find_node(1).pid, signal.SIGKILL)
    out, _ = cluster.start().communicate(timeout=PATIENCE)
    assert "proceed" in out, out
    assert "goes on from an earlier attempt" in out
    # The job was made once, its nodes were started again, and nothing of it is left.
    assert cluster.server.requests.count(f"POST {TRAINJOBS}") == 1
    assert len(cluster.controller.started) == 4
    assert not [path for path in cluster.server.objects if path.startswith(TRAINJOBS)]
    outcome = cluster.read_outcome()
    assert (outcome["status"], outcome["details"]["steps"]) == ("done", STEPS)
    assert outcome["details"]["resumed_from"] > 0
    # As two processes of one machine would have trained it, left alone.
    finetune_in_processes(
        finetune,
        2,
        resolve_task(TaskSpec.model_validate_json(cluster.arguments["task"])),
        Path(cluster.arguments["data"]),
        tmp_path / "expected",
        checkpoints=tmp_path / "expected-checkpoints",
        progress=ignore_progress,
        log_metrics=lambda _metrics, _step: None,
    )
    found = load_file(cluster.candidate / "adapter" / "adapter_model.safetensors")
    expected = load_file(tmp_path / "expected" / "adapter" / "adapter_model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


def test_what_no_node_can_train_is_told_by_the_step(make_cluster: Callable[..., Cluster]) -> None:
    # Three rows cannot be divided among two processes.
    cluster = make_cluster(batch_size=3)
    out, _ = cluster.start().communicate(timeout=PATIENCE)
    assert "stop" in out.splitlines()[-1], out
    failure = cluster.read_outcome()["failure"]
    assert failure["error"] == "TrainingError"
    assert "a batch of 3 cannot be divided among 2 processes" in failure["message"]
    assert not [path for path in cluster.server.objects if path.startswith(TRAINJOBS)]
