"""One graph, three runners: processes, containers, and the rules of Kubeflow's backend end alike."""

import json
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorry_components.steps.runtime.outcomes import STEPS
from lorry_components.watchdog import start_watched
from lorry_pipelines.cluster.profile import ClusterProfile
from lorry_pipelines.graph import TaskGroup, build_pipeline
from lorry_pipelines.local.containers import Mount
from lorry_pipelines.local.runner_process import LocalRun
from lorry_pipelines.scheduling import load_tasks
from lorry_pipelines.step_images import Image, StepImages
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_references import store_task
from lorry_registry.tasks.task_spec import ResourcesSpec

from fixtures.kubeflow_backend import KubeflowBackend, exhaust_memory, kill_pod

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

IMPOSSIBLE = 2.0
# What a step has written of the run's folder when it loses its pod; the others lose it at once.
TRACES = {"finetune": "checkpoints/*", "register": "adapters/*"}


class Runs:
    """Runs of one compiled pipeline on one runner.

    Attributes:
        runner: ``subprocess``, ``docker`` or ``backend``.
        watch: What the backend calls for each pod.
    """

    def __init__(self, workspace: Any, runner: str, **local: Any) -> None:
        self.workspace = workspace
        self.runner = runner
        self.local = local
        self.watch: Callable[..., None] = lambda *_: None
        self.store = LocalStore(workspace.store)
        self.registry = Registry(self.store, workspace.home / "cache")
        self.pods: list[tuple[str, int]] = []
        self.count = 0

    def run(self, *tasks: str, force: bool = False) -> tuple[bool, dict[str, str]]:
        """Run tasks; return whether the run succeeded, and what the report says of each."""
        self.count += 1
        name = f"{self.runner}-{self.count}"
        compiled = self._compile(name)
        arguments = {
            "tasks": list(tasks),
            "store": str(self.workspace.store),
            "tracking_uri": f"sqlite:///{self.workspace.home}/mlflow.db",
            "checkpoints": str(self.workspace.home / "checkpoints"),
            "force": force,
        }
        if self.runner == "backend":
            succeeded = self._run_on_backend(compiled, arguments, name)
        else:
            succeeded = self._run_here(compiled, arguments | {"run": name}, name)
        report = json.loads((self.workspace.store / "runs" / name / "report.json").read_text("utf-8"))
        return succeeded, {task["task"]: task["status"] for task in report["tasks"]}

    def _compile(self, name: str) -> Path:
        from kfp import compiler

        path = self.workspace.folder / f"{name}.yaml"
        placed = ClusterProfile() if self.runner == "backend" else None
        image = Image(self.local.get("image", "registry.example/lorry@sha256:12"), "LORRY_IMAGE")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline = build_pipeline(
                [TaskGroup(ResourcesSpec(), ())],
                images=StepImages(image, image),
                store="",
                tracking_uri="",
                profile=placed,
            )
            compiler.Compiler().compile(pipeline, str(path))
        return path

    def _run_on_backend(self, compiled: Path, arguments: dict[str, Any], name: str) -> bool:
        environment = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        environment |= {
            key: value for key, value in self.workspace.build_environment().items() if key == "PYTHONPATH"
        }
        backend = KubeflowBackend(self.workspace.folder / "pods", environment, self.watch)
        ended = backend.run(compiled.read_text("utf-8"), arguments, run=name)
        self.pods = ended.pods
        (self.workspace.folder / f"{name}.log").write_text(ended.log, "utf-8")
        return ended.state == "SUCCEEDED"

    def _run_here(self, compiled: Path, arguments: dict[str, Any], name: str) -> bool:
        described = self.workspace.folder / f"{name}.json"
        run = LocalRun(
            pipeline=compiled,
            arguments=arguments,
            root=self.workspace.home / "work" / name,
            runner=self.runner,
            mounts=self.local.get("mounts", ()),
            environment={"LORRY_HOME": str(self.workspace.home)} if self.runner == "docker" else {},
            passed_on=("OMP_NUM_THREADS",),
        )
        described.write_text(run.model_dump_json())
        command = [sys.executable, "-m", "lorry_pipelines.local.runner_process", str(described)]
        with (self.workspace.folder / f"{name}.log").open("wb") as log:
            environment = self.workspace.build_environment(**self.local.get("environment", {}))
            # It ends its whole group of processes when its starter is gone, so it needs one of its own.
            with start_watched(command, log=log, environment=environment) as process:
                return process.wait() == 0


def write_references(runs: Runs) -> dict[str, str]:
    """Return a good task, one whose gate cannot be passed, and one whose data lack a column."""
    workspace = runs.workspace
    workspace.write_task("good")
    workspace.write_task("refused", gate={"minimum": IMPOSSIBLE})
    workspace.write_rows("broken.jsonl", [{"text": "no label"}] * 20)
    workspace.write_task("broken")
    files = [workspace.folder / f"{name}.yaml" for name in ("good", "refused", "broken")]
    return {spec.name: str(store_task(runs.store, spec)) for spec in load_tasks(files)}


@pytest.fixture(
    params=[
        # Pods of the backend that are lost, below, and submitted runs go the same ways in the ordinary tests.
        pytest.param("backend", marks=pytest.mark.exhaustive),
        pytest.param("subprocess", marks=pytest.mark.exhaustive),
        pytest.param("docker", marks=[pytest.mark.containers, pytest.mark.exhaustive]),
    ]
)
def runs(request: pytest.FixtureRequest, workspace: Any) -> Iterator[Runs]:
    if request.param != "docker":
        yield Runs(workspace, request.param)
        return
    service, image = (request.getfixturevalue(name) for name in ("podman_service", "lorry_image"))
    workspace.home.mkdir(parents=True, exist_ok=True)
    mounts = tuple(
        Mount(source=folder, target=folder, is_read_only=False)
        for folder in (workspace.folder, workspace.base)
    )
    yield Runs(workspace, "docker", image=image, mounts=mounts, environment={"DOCKER_HOST": service})


def test_the_runners_end_alike(runs: Runs) -> None:
    tasks = write_references(runs)

    # A fan-out in which one task fails and one is refused.
    assert runs.run(*tasks.values()) == (
        False,
        {"good": "promoted", "refused": "challenger", "broken": "failed"},
    )
    assert runs.registry.ledger.read_state("good").champion_version == 1
    assert runs.registry.ledger.read_state("refused").champion_version is None
    assert runs.registry.ledger.list_tasks() == ["good", "refused"]

    # A rerun that has nothing to do; what was refused is told as refused, not as up to date.
    assert runs.run(tasks["good"], tasks["refused"]) == (True, {"good": "current", "refused": "challenger"})

    # No tasks at all.
    assert runs.run() == (True, {})

    # Forced, the same training gives the same adapter.
    assert runs.run(tasks["good"], force=True) == (True, {"good": "unchanged"})


def test_a_step_whose_pod_is_lost_is_tried_again(workspace: Any) -> None:
    """Each step loses its first pod, at once or in the middle of its work."""
    runs = Runs(workspace, "backend")
    tasks = write_references(runs)

    def lose_first(name: str, process: "subprocess.Popen[bytes]", attempt: int) -> None:
        # A verdict is not retried: it fails by design, and each wait would delay the report.
        if attempt == 0 and name != "verdict":
            threading.Thread(target=lose, args=(process, TRACES.get(name)), daemon=True).start()

    def lose(process: "subprocess.Popen[bytes]", trace: str | None) -> None:
        folders = (workspace.home, workspace.store)
        while trace is not None and not any(any(folder.glob(trace)) for folder in folders):
            if process.poll() is not None:
                return
            time.sleep(0.002)
        kill_pod(process)

    runs.watch = lose_first
    assert runs.run(tasks["good"]) == (True, {"good": "promoted"})
    for step in (*STEPS, "report"):
        statuses = [status for name, status in runs.pods if name == step.replace("_", "-")]
        assert statuses == [-signal.SIGKILL, 0], step


def test_a_step_that_runs_out_of_memory_is_not_tried_again_until_it_is_submitted_again(
    workspace: Any,
) -> None:
    runs = Runs(workspace, "backend")
    tasks = write_references(runs)

    def exhaust(name: str, process: "subprocess.Popen[bytes]", _attempt: int) -> None:
        if name == "finetune":
            threading.Thread(target=after_checkpoint, args=(process,), daemon=True).start()

    def after_checkpoint(process: "subprocess.Popen[bytes]") -> None:
        while process.poll() is None and not any(workspace.home.glob("checkpoints/*")):
            time.sleep(0.002)
        exhaust_memory(process)

    runs.watch = exhaust
    assert runs.run(tasks["good"]) == (False, {"good": "failed"})
    assert [status for name, status in runs.pods if name == "finetune"] == [137]
    assert any(workspace.home.glob("checkpoints/*"))

    runs.watch = lambda *_: None
    assert runs.run(tasks["good"]) == (True, {"good": "promoted"})
