"""A step that trains on several nodes, against an API server over HTTP: what it asks for, and how it ends."""

import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from lorry_components.steps.finetune.multi_node.multi_node_job import MultiNodeJob, Pace, name_job
from lorry_components.steps.finetune.multi_node.node_channel import NodeChannel, NodeWork, name_channel
from lorry_components.steps.finetune.multi_node.node_entry import Waiting, count_processes, read_node
from lorry_components.steps.finetune.multi_node.train_job_settings import (
    JobSecret,
    JobVolume,
    TrainJobSettings,
    read_train_job_settings,
)
from lorry_components.steps.finetune.multi_node.train_jobs import TrainJobs, build_job
from lorry_components.steps.runtime.kubernetes_api import KubernetesApi
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.errors import ClusterError, Fault, InvalidDataError, StoreError, TrainingError, UsageError
from lorry_registry.manifest import BaseIdentity, ParameterCounts, ResolvedRecipe, TrainingInputs
from lorry_registry.retries import RetryPolicy
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import Toleration

from fixtures.kubernetes_server import NAMESPACE, RUNTIMES, TOKEN, TRAINJOBS, KubernetesServer

RIGHTS = Path(__file__).parents[5] / "infra" / "k8s" / "components" / "trainer" / "rights.yaml"
NAME = "lorry-films-0123456789abcdef"
POST = f"POST {TRAINJOBS}"
GET = f"GET {TRAINJOBS}/{NAME}"
DIGEST = f"sha256:{'a' * 64}"


def make_settings(**changes: Any) -> TrainJobSettings:
    asked: dict[str, Any] = {
        "runtime": "torch-distributed",
        "image": f"registry.example/lorry@{DIGEST}",
        "nodes": 2,
        "resources": {"cpu": "2", "memory": "24576Mi", "nvidia.com/gpu": "4"},
        "shared_memory": "8Gi",
        "environment": {"HOME": "/home/lorry"},
        "secrets": [JobSecret(variable="AWS_SECRET_ACCESS_KEY", name="lorry-s3", key="secret")],
        "volumes": [JobVolume(claim="lorry-bases", path="/bases", read_only=True)],
        "node_selector": {"gpu": "h100"},
        "tolerations": [Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")],
        "labels": {"app.kubernetes.io/part-of": "lorry"},
        "job_labels": {"kueue.x-k8s.io/queue-name": "lorry"},
        "user": 10001,
        "group": 10001,
        "home": "/home/lorry",
        "image_pull_secrets": ["registry"],
        "deadline_seconds": 60,
        "start_seconds": 60,
    }
    return TrainJobSettings.model_validate(asked | changes)


def make_summary() -> TrainingSummary:
    return TrainingSummary(
        base=BaseIdentity(model="a base", revision=None, fingerprint=DIGEST, architecture="BertModel"),
        inputs=TrainingInputs(
            source_digest=DIGEST,
            data_digest=DIGEST,
            recipe_digest=DIGEST,
            fingerprints_digest=None,
            makeup=ResolvedRecipe(digest=DIGEST, defaults={}, code={}, start=None),
        ),
        labels=None,
        has_pair=False,
        parameters=ParameterCounts(adapter=1, head=0, total=2),
        learning_rate=0.1,
        device="cpu",
        precision="fp32",
        examples=1,
        steps=1,
        resumed_from=0,
        seconds=1.0,
        examples_per_second=1.0,
        loss=0.5,
        libraries={},
    )


class Step:
    """A step, its place in a store, and what plays its nodes."""

    def __init__(self, server: KubernetesServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir()
        (self.data / "train.parquet").write_bytes(b"rows")
        self.store = LocalStore(folder / "store")
        self.channel = NodeChannel(self.store, name_channel("run-1", "films"))
        configuration = client.Configuration(host=server.host, api_key={"authorization": f"Bearer {TOKEN}"})
        configuration.retries = False
        self.api = KubernetesApi(
            client.ApiClient(configuration), NAMESPACE, RetryPolicy(seconds=1.0, first_seconds=0.05)
        )

    def run(self, pace: Pace | None = None, **settings: Any) -> TrainingSummary:
        training = MultiNodeJob(
            TrainJobs(self.api),
            self.channel,
            make_settings(**settings),
            NAME,
            pace or Pace(look=0.02, beat=0.02, stuck=0.1),
        )
        work = NodeWork(
            task="films@" + DIGEST,
            run="run-1",
            tracking_uri="",
            mlflow_run="a-run",
            checkpoints=str(self.folder / "store"),
            checkpoints_key="checkpoints/films",
            notes=(),
        )
        return training.run(work, self.data, self.folder / "candidate", store=self.store.address)

    def finish(self, _path: str = "", _job: Any = None) -> None:
        """What the nodes do when all goes well."""
        self.server.put_pod(NAME, 0)
        self.server.put_pod(NAME, 1)
        self.server.log(f"{NAME}-node-0-0-abcde", "step 1 of 1")

        def end() -> None:
            time.sleep(0.2)
            made = self.folder / "made"
            (made / "adapter").mkdir(parents=True, exist_ok=True)
            (made / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
            make_summary().save(made)
            self.channel.keep_result(made)
            self.server.set_condition(NAME, "Complete", "JobsCompleted", "completed")

        threading.Thread(target=end, daemon=True).start()

    def count(self, asked: str) -> int:
        return self.server.requests.count(asked)


@pytest.fixture
def step(kubernetes_server: KubernetesServer, tmp_path: Path) -> Step:
    return Step(kubernetes_server, tmp_path)


def test_a_job_is_made_watched_shown_and_removed(step: Step, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made: list[dict[str, Any]] = []

    def create(path: str, job: dict[str, Any]) -> None:
        made.append(job)
        step.finish()

    step.server.on_create = create
    assert step.run().steps == 1
    assert (step.folder / "candidate" / "adapter" / "adapter_model.safetensors").read_bytes() == b"weights"
    assert [line for line in caplog.messages if "step 1 of 1" in line] == ["node 0: step 1 of 1"]
    # Neither the job nor what was exchanged is left.
    assert f"{TRAINJOBS}/{NAME}" not in step.server.objects
    assert list(step.store.list_keys(step.channel.key)) == []
    (job,) = made
    assert job["metadata"]["labels"] == {
        "app.kubernetes.io/part-of": "lorry",
        "kueue.x-k8s.io/queue-name": "lorry",
    }
    spec = job["spec"]
    assert spec["runtimeRef"]["name"] == "torch-distributed"
    assert spec["activeDeadlineSeconds"] == 60
    assert spec["trainer"]["numNodes"] == 2
    program = ["python3", "-P", "-m", "lorry_components.steps.finetune.multi_node.node_entry"]
    assert spec["trainer"]["command"] == [*program, step.store.address, step.channel.key]
    assert spec["trainer"]["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "4"
    (patch,) = spec["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["nodeSelector"] == {"gpu": "h100"}
    (container,) = pod["containers"]
    assert container["name"] == "node"
    # Trainer's admission refuses them in a patch.
    assert "env" not in container
    (home, secret) = spec["trainer"]["env"]
    assert home == {"name": "HOME", "value": "/home/lorry"}
    assert secret["valueFrom"]["secretKeyRef"]["name"] == "lorry-s3"
    mounted = {mount["mountPath"]: mount.get("readOnly") for mount in container["volumeMounts"]}
    assert mounted == {"/tmp": None, "/home/lorry": None, "/dev/shm": None, "/bases": True}  # noqa: S108
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}} in pod["volumes"]


def test_the_step_does_no_more_than_its_account_may(step: Step) -> None:
    def fail(_path: str, _job: Any) -> None:
        step.server.put_pod(NAME, 0, **EVICTED)
        step.server.set_condition(NAME, "Failed", "BackoffLimitExceeded", "a job failed")

    with pytest.raises(TrainingError):
        step.run(start_seconds=1)
    step.server.on_create = fail
    with pytest.raises(TrainingError):
        step.run()
    rules = [
        rule
        for document in yaml.safe_load_all(RIGHTS.read_text("utf-8"))
        for rule in document.get("rules", ())
    ]
    allowed = {(verb, resource) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    asked = {find_right(request) for request in step.server.requests}
    assert {("create", "trainjobs"), ("list", "pods"), ("get", "pods/log"), ("list", "events")} <= asked
    assert asked <= allowed


def find_right(request: str) -> tuple[str, str]:
    """Return the verb and the resource that a request takes."""
    method, _, path = request.partition(" ")
    match = re.fullmatch(r"/(?:api|apis/[^/]+)/[^/]+(?:/namespaces/[^/]+)?/([a-z]+)(/[^/]+)?(/log)?", path)
    assert match, request
    verb = {"POST": "create", "DELETE": "delete"}.get(method) or ("get" if match[2] else "list")
    return verb, match[1] + (match[3] or "")


def test_a_job_is_as_the_models_of_trainer_have_it() -> None:
    models = pytest.importorskip("kubeflow_trainer_api.models")
    job = build_job(NAME, {"kind": "ClusterTrainingRuntime", "name": "r"}, make_settings(), ["python3"])
    # What they do not know would be missing from what they write.
    assert models.TrainerV1alpha1TrainJob.from_dict(job).to_dict() == job


def test_a_step_that_is_run_again_finds_its_job(step: Step) -> None:
    step.server.put(f"{TRAINJOBS}/{NAME}", {"metadata": {"name": NAME}})
    step.channel.publish(
        NodeWork(
            task="t",
            run="r",
            tracking_uri="",
            mlflow_run="",
            checkpoints="",
            checkpoints_key="k",
            notes=(),
        ),
        step.data,
    )
    step.finish()
    assert step.run().steps == 1
    assert step.count(POST) == 0


def test_a_step_that_is_run_again_after_the_end_takes_the_result(step: Step) -> None:
    step.finish()
    while not step.channel.has_result:
        time.sleep(0.02)
    assert step.run().steps == 1
    assert step.count(POST) == 0


def test_a_job_that_failed_in_an_earlier_attempt_is_made_anew(step: Step) -> None:
    step.server.put(f"{TRAINJOBS}/{NAME}", {"metadata": {"name": NAME}})
    step.server.set_condition(NAME, "Failed", "JobsFailed", "a node was lost")
    step.channel.fail(TrainingError("an old failure"))
    step.server.on_create = step.finish
    assert step.run().steps == 1
    assert step.count(POST) == 1


def test_a_job_that_does_not_go_away_is_not_waited_for_without_end(step: Step) -> None:
    def keep() -> None:
        step.server.put(f"{TRAINJOBS}/{NAME}", {"metadata": {"name": NAME}})
        step.server.set_condition(NAME, "Failed", "JobsFailed", "a node was lost")

    keep()
    # As a finalizer would.
    step.server.on_delete = lambda _path: keep()
    with pytest.raises(TrainingError, match="does not go away"):
        step.run()


@pytest.mark.parametrize("fault", [500, 503, 429, "drop", "lose"], ids=str)
@pytest.mark.parametrize("asked", [POST, GET], ids=["create", "look"])
def test_a_server_that_is_away_for_a_moment_is_asked_again(step: Step, asked: str, fault: Any) -> None:
    step.server.on_create = step.finish
    step.server.faults = [(asked, fault), (asked, fault)]
    assert step.run().steps == 1
    assert [planned[0] for planned in step.server.faults] == []
    # A job whose answer was lost is there already, and is not made twice.
    assert f"{TRAINJOBS}/{NAME}" not in step.server.objects


@pytest.mark.parametrize(
    ("asked", "fault", "told", "todo"),
    [
        (POST, 401, "HTTP 401", "log in again"),
        (
            POST,
            (403, "exceeded quota: lorry, requested: count/trainjobs=1"),
            "exceeded quota",
            "ResourceQuota",
        ),
        (POST, 403, "HTTP 403", "infra/k8s/components/trainer"),
        (POST, 422, "HTTP 422", "correct what it names"),
        (f"GET {RUNTIMES}/torch-distributed", 404, "torch-distributed is not there", "install Trainer"),
        (POST, 404, "Kubeflow Trainer is not there", "install Trainer"),
    ],
)
def test_a_refusal_is_told_with_its_remedy(step: Step, asked: str, fault: Any, told: str, todo: str) -> None:
    step.server.faults = [(asked, fault)]
    with pytest.raises(ClusterError, match=todo) as raised:
        step.run()
    assert told in str(raised.value)
    assert TOKEN not in str(raised.value)


def test_a_server_that_stays_away_ends_the_step(step: Step) -> None:
    step.server.faults = [(".*", "drop")] * 1000
    with pytest.raises(ClusterError, match="check that the API server is up"):
        step.run()


def test_a_runtime_for_something_else_is_refused(step: Step) -> None:
    step.server.put(f"{RUNTIMES}/torch-distributed", {"metadata": {"name": "torch-distributed"}})
    with pytest.raises(ClusterError, match="ClusterTrainingRuntime torch-distributed is not for torch"):
        step.run()


EVICTED = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
PREEMPTED = {
    "phase": "Failed",
    "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}],
}
KILLED = {
    "phase": "Running",
    "containerStatuses": [
        {"name": "node", "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
    ],
}


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (EVICTED, "node 1: Evicted: The node was low on resource: memory."),
        (PREEMPTED, "node 1: PreemptionByScheduler"),
        (KILLED, "node 1: OOMKilled, exit code 137"),
    ],
    ids=["evicted", "preempted", "killed"],
)
def test_a_job_that_fails_says_which_node_and_why(step: Step, status: dict[str, Any], told: str) -> None:
    def fail(_path: str, _job: Any) -> None:
        step.server.put_pod(NAME, 0)
        step.server.put_pod(NAME, 1, **status)
        step.server.log(f"{NAME}-node-0-1-abcde", "the last thing that it said")
        step.server.set_condition(NAME, "Failed", "BackoffLimitExceeded", "a job failed")

    step.server.on_create = fail
    with pytest.raises(TrainingError) as raised:
        step.run()
    for part in ("BackoffLimitExceeded: a job failed", told, "the last thing that it said"):
        assert part in str(raised.value)
    assert f"{TRAINJOBS}/{NAME}" not in step.server.objects


def test_what_a_node_cannot_do_is_told_as_its_own_error(step: Step) -> None:
    def fail(_path: str, _job: Any) -> None:
        step.channel.fail(
            InvalidDataError("rows.jsonl", [Fault("line 3", "is too long", "cut it")], todo="x")
        )
        # The first is heard.
        step.channel.fail(TrainingError("another"))

    step.server.on_create = fail
    with pytest.raises(InvalidDataError, match="line 3: is too long; cut it"):
        step.run()
    assert f"{TRAINJOBS}/{NAME}" not in step.server.objects


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (
            lambda step: step.server.put_event(
                f"{NAME}-node-0", "FailedCreate", "exceeded quota: gpus, requested: requests.nvidia.com/gpu=4"
            ),
            "exceeded quota: gpus",
        ),
        (
            lambda step: step.server.put_event(
                f"{NAME}-node-0-1-abcde", "FailedScheduling", "0/3 nodes are available"
            ),
            "0/3 nodes are available",
        ),
        (
            lambda step: step.server.set_condition(NAME, "Suspended", "Suspended", "waits for quota"),
            "suspended: Suspended: waits for quota",
        ),
        (lambda _step: None, "the cluster says nothing of why"),
    ],
    ids=["quota", "no-node", "kueue", "nothing"],
)
def test_nodes_that_do_not_start_are_waited_for_so_long_and_no_longer(
    step: Step, prepare: Callable[[Step], None], told: str
) -> None:
    step.server.put_event("another-node-0", "FailedCreate", "nothing of ours")
    step.server.on_create = lambda _path, _job: prepare(step)
    with pytest.raises(TrainingError) as raised:
        step.run(start_seconds=1)
    assert told in str(raised.value)
    assert "0 of 2 nodes started" in str(raised.value)
    assert "nothing of ours" not in str(raised.value)


def test_an_image_that_cannot_be_pulled_is_not_waited_for_a_day(step: Step) -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}

    def create(_path: str, _job: Any) -> None:
        for number in range(2):
            step.server.put_pod(
                NAME,
                number,
                phase="Pending",
                containerStatuses=[{"name": "node", "state": {"waiting": waiting}}],
            )

    step.server.on_create = create
    started = time.monotonic()
    with pytest.raises(TrainingError, match="node 0: ImagePullBackOff: Back-off pulling image"):
        step.run()
    assert time.monotonic() - started < 30


def test_a_job_that_somebody_deletes_or_that_takes_too_long_ends_the_step(step: Step) -> None:
    step.server.on_create = lambda _path, _job: threading.Timer(
        0.2, lambda: step.server.objects.pop(f"{TRAINJOBS}/{NAME}")
    ).start()
    with pytest.raises(TrainingError, match="was deleted while it went on"):
        step.run()

    def run_on(_path: str, _job: Any) -> None:
        step.server.put_pod(NAME, 0)
        step.server.put_pod(NAME, 1)

    step.server.on_create = run_on
    with pytest.raises(TrainingError, match="has not ended within 1 seconds"):
        step.run(deadline_seconds=1)


def test_a_job_that_completes_without_a_result_is_a_failure(step: Step) -> None:
    step.server.on_create = lambda _path, _job: step.server.set_condition(NAME, "Complete", "Done", "")
    with pytest.raises(TrainingError, match="the nodes ended without a result"):
        step.run()


def test_names_are_the_same_for_the_same_step_and_fit_the_names_of_pods() -> None:
    name = name_job("run-1", "a_task_with_a_name_that_is_very_long_indeed", "training")
    assert name == name_job("run-1", "a_task_with_a_name_that_is_very_long_indeed", "training")
    assert name != name_job("run-2", "a_task_with_a_name_that_is_very_long_indeed", "training")
    assert len(f"{name}-node-0-63-abcde") <= 63
    assert name.startswith("lorry-a-task-with-a-name-that"[:20])


# The nodes' part


def test_nodes_stop_when_nobody_waits(tmp_path: Path) -> None:
    channel = NodeChannel(LocalStore(tmp_path), "runs/r/nodes/t")
    channel.beat()
    waiting = Waiting(channel, abandoned_seconds=0.3, look_seconds=0.0)
    for _ in range(8):
        channel.beat()
        waiting.check()
        time.sleep(0.1)
    with pytest.raises(TrainingError, match="no one has waited"):
        for _ in range(20):
            waiting.check()
            time.sleep(0.05)


def test_a_node_that_is_not_told_its_number_says_so() -> None:
    with pytest.raises(UsageError, match="PET_NODE_RANK"):
        read_node({})
    told = {"PET_NODE_RANK": "1", "PET_NNODES": "2", "PET_MASTER_ADDR": "a", "PET_MASTER_PORT": "29500"}
    assert read_node(told).number == 1


def test_a_node_with_too_few_accelerators_fails_for_good() -> None:
    assert count_processes(0) == 1
    with pytest.raises(TrainingError, match="has 0 of the 512 accelerators"):
        count_processes(512)


def test_a_file_that_was_changed_in_the_store_is_not_taken(step: Step) -> None:
    made = step.folder / "made"
    (made / "adapter").mkdir(parents=True)
    (made / "adapter" / "weights").write_bytes(b"weights")
    make_summary().save(made)
    step.channel.keep_result(made)
    step.store.delete(f"{step.channel.key}/result/adapter/weights")
    step.store.create(f"{step.channel.key}/result/adapter/weights", b"others")
    with pytest.raises(StoreError, match="not what was uploaded"):
        step.channel.fetch_result(step.folder / "candidate")


def test_settings_of_another_version_are_refused() -> None:
    with pytest.raises(UsageError, match="compile the pipeline again"):
        read_train_job_settings('{"later": 1}')
    settings = make_settings()
    assert read_train_job_settings(settings.model_dump_json(exclude_defaults=True)) == settings
