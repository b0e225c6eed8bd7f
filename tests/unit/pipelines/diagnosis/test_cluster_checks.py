"""``lorry doctor --cluster``, against a Kubeflow and a Kubernetes over HTTP."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from lorry_components.steps.runtime.kubernetes_api import KubernetesApi
from lorry_pipelines.cli import lorry
from lorry_pipelines.diagnosis.pod_failures import read_pod_failures
from lorry_registry.stores import open_store

from fixtures.kubeflow_backend import KubeflowBackend
from fixtures.kubeflow_server import TOKEN as KUBEFLOW_TOKEN
from fixtures.kubeflow_server import KubeflowServer
from fixtures.kubernetes_server import NAMESPACE, TOKEN, KubernetesServer

IMAGE = f"registry.example/lorry@sha256:{'a' * 64}"
API = f"/api/v1/namespaces/{NAMESPACE}"
PROFILE = {
    "secrets": [
        {"name": "lorry-s3", "variables": {"id": "AWS_ACCESS_KEY_ID", "key": "AWS_SECRET_ACCESS_KEY"}},
        {"name": "lorry-hub", "variables": {"token": "HF_TOKEN"}, "optional": True},
    ],
    "image_pull_secrets": ["registry"],
    "bases": {"claim": "lorry-bases"},
    "queue": {"name": "research"},
    "trainer": {"runtime": "torch-distributed"},
}


class Doctor:
    """The command, with what it looks at.

    Attributes:
        kubeflow: Kubeflow Pipelines; a run stays PENDING unless ``run_pods`` was called.
        kubernetes: The cluster's API; all that the profile names is there.
    """

    def __init__(self, folder: Path, kubeflow: KubeflowServer, kubernetes: KubernetesServer) -> None:
        self.folder = folder
        self.kubeflow = kubeflow
        self.kubernetes = kubernetes
        kubeflow.token = KUBEFLOW_TOKEN
        keys = {"id": "Z2VoZWlt", "key": "Z2VoZWlt"}
        for path, body in {
            f"{API}/secrets/lorry-s3": {"data": keys},
            f"{API}/secrets/registry": {"data": {}},
            f"{API}/persistentvolumeclaims/lorry-bases": {"status": {"phase": "Bound"}},
            f"{API}/resourcequotas/lorry": {
                "metadata": {"name": "lorry"},
                "status": {"hard": {"pods": "10", "requests.memory": "64Gi"}, "used": {"pods": "1"}},
            },
            "/apis/kueue.x-k8s.io": {"preferredVersion": {"groupVersion": "kueue.x-k8s.io/v1beta2"}},
            f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/localqueues/research": {},
            "/apis/trainer.kubeflow.org/v1alpha1": {"resources": []},
        }.items():
            kubernetes.put(path, body)
        (folder / "profile.yaml").write_text(yaml.safe_dump(PROFILE), "utf-8")

    def look(self, *options: str, code: int) -> dict[str, dict[str, Any]]:
        """Return the findings by their subjects."""
        result = CliRunner().invoke(
            lorry, ["doctor", "--cluster", "--profile", "profile.yaml", "--json", *options]
        )
        assert result.exit_code == code, (result.output, result.exception)
        assert "Z2VoZWlt" not in result.output
        assert TOKEN not in result.output
        found = json.loads(result.stdout)
        assert all(finding["todo"] for finding in found if finding["level"] != "ok"), found
        return {finding["subject"]: finding for finding in found}

    def run_pods(self, environment: dict[str, str]) -> Callable[[], None]:
        """Let each run start, its steps as processes; return a function that waits for their ends."""
        threads: list[threading.Thread] = []

        def execute(run: dict[str, Any]) -> None:
            version = self.kubeflow.versions[run["pipeline_version_reference"]["pipeline_version_id"]]
            backend = KubeflowBackend(self.folder / "pods", environment | {"PYTHONWARNINGS": "ignore"})
            ended = backend.run(yaml.safe_dump_all(version["pipeline_spec"]), {}, run=run["run_id"])
            run["state"] = ended.state

        def start(run: dict[str, Any]) -> None:
            run["state"] = "RUNNING"
            threads.append(threading.Thread(target=execute, args=(run,)))
            threads[-1].start()

        self.kubeflow.on_start = start
        return lambda: [thread.join() for thread in threads] and None


@pytest.fixture
def doctor(
    kubeflow: KubeflowServer,
    kubernetes_server: KubernetesServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Doctor:
    for name in [name for name in os.environ if name.startswith(("LORRY_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    configuration = kubernetes_server.write_kubeconfig(tmp_path / "kubeconfig")
    # The client reads the variable when it is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(configuration))
    for name, value in {
        "LORRY_STORE": "s3://bucket/lorry",
        "LORRY_IMAGE": IMAGE,
        "MLFLOW_TRACKING_URI": "http://mlflow.lorry.svc:5000",
        "LORRY_KUBEFLOW_HOST": kubeflow.host,
        "LORRY_KUBEFLOW_TOKEN": KUBEFLOW_TOKEN,
    }.items():
        monkeypatch.setenv(name, value)
    return Doctor(tmp_path, kubeflow, kubernetes_server)


def test_a_cluster_that_has_all_of_it(doctor: Doctor) -> None:
    found = doctor.look("--no-pod", code=0)
    assert {finding["level"] for finding in found.values()} == {"ok"}, found
    assert "2.17.0" in found["Kubeflow"]["text"]
    assert "v1.33.1" in found["Kubernetes"]["text"]
    assert found["quota lorry"]["text"] == "pods 1 of 10, requests.memory 0 of 64Gi"
    assert {"secret lorry-s3", "secret lorry-hub", "secret registry", "claim lorry-bases"} <= found.keys()
    # Nothing was made.
    assert not [asked for asked in doctor.kubernetes.requests if not asked.startswith("GET")]
    assert doctor.kubeflow.runs == {}


@pytest.mark.parametrize(
    ("missing", "subject", "text"),
    [
        (f"{API}/secrets/lorry-s3", "secret lorry-s3", "is not in lorry"),
        (f"{API}/secrets/registry", "secret registry", "is not in lorry"),
        (f"{API}/persistentvolumeclaims/lorry-bases", "claim lorry-bases", "is not in lorry"),
        ("/apis/kueue.x-k8s.io", "queue", "does not serve kueue.x-k8s.io"),
        (
            f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/localqueues/research",
            "queue",
            "there is no LocalQueue research",
        ),
        ("/apis/trainer.kubeflow.org/v1alpha1", "Kubeflow Trainer", "does not serve trainer.kubeflow.org"),
        (
            "/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/torch-distributed",
            "Kubeflow Trainer",
            "there is no runtime torch-distributed",
        ),
    ],
)
def test_what_is_missing_is_told(doctor: Doctor, missing: str, subject: str, text: str) -> None:
    del doctor.kubernetes.objects[missing]
    finding = doctor.look("--no-pod", code=1)[subject]
    assert finding["level"] == "failure"
    assert text in finding["text"]


def test_a_secret_without_a_key_and_a_claim_that_waits(doctor: Doctor) -> None:
    doctor.kubernetes.put(f"{API}/secrets/lorry-s3", {"data": {"id": "Z2VoZWlt"}})
    doctor.kubernetes.put(f"{API}/persistentvolumeclaims/lorry-bases", {"status": {"phase": "Pending"}})
    found = doctor.look("--no-pod", code=1)
    assert found["secret lorry-s3"]["text"] == "has no key key"
    assert (found["claim lorry-bases"]["level"], found["claim lorry-bases"]["text"]) == (
        "warning",
        "is Pending",
    )


@pytest.mark.parametrize(
    ("hard", "used", "level", "text"),
    [
        ({"requests.memory": "1Gi"}, {}, "failure", "less than register alone asks for"),
        ({"limits.memory": "8Gi"}, {"limits.memory": "4Gi"}, "warning", "would wait"),
        ({"requests.cpu": "1500m"}, {}, "failure", "less than"),
        ({"pods": "3"}, {"pods": "3"}, "warning", "would wait"),
    ],
)
def test_a_quota_is_compared_with_what_steps_ask_for(
    doctor: Doctor, hard: dict[str, str], used: dict[str, str], level: str, text: str
) -> None:
    quota = {"metadata": {"name": "lorry"}, "status": {"hard": hard, "used": used}}
    doctor.kubernetes.put(f"{API}/resourcequotas/lorry", quota)
    finding = doctor.look("--no-pod", code=1 if level == "failure" else 0)["quota lorry"]
    assert finding["level"] == level
    assert text in finding["text"]


@pytest.mark.parametrize(
    ("version", "code", "level"),
    [("2.16.1", 1, "failure"), ("2.5.0", 1, "failure"), ("", 0, "warning"), ("2.20.0", 0, "ok")],
)
def test_an_old_backend_is_refused(doctor: Doctor, version: str, code: int, level: str) -> None:
    doctor.kubeflow.version = version
    assert doctor.look("--no-pod", code=code)["Kubeflow"]["level"] == level


def test_who_may_not_look_or_cannot_reach_it_is_told_so(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor.kubernetes.refused = [rf"GET {API}/.*"]
    found = doctor.look("--no-pod", code=0)
    assert found["secret lorry-s3"]["level"] == found["quota"]["level"] == "warning"
    assert found["queue"]["level"] == "ok"
    doctor.kubernetes.faults = [(".*", 401)] * 20
    assert "HTTP 401" in doctor.look("--no-pod", code=1)["Kubernetes"]["text"]
    doctor.kubernetes.faults = []
    monkeypatch.setenv("LORRY_KUBEFLOW_TOKEN", "expired")
    found = doctor.look("--no-pod", code=1)
    assert "HTTP 401" in found["Kubeflow"]["text"]
    assert "LORRY_KUBEFLOW_TOKEN" in found["Kubeflow"]["todo"]
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/no/such/file")
    monkeypatch.setenv("LORRY_KUBEFLOW_TOKEN", KUBEFLOW_TOKEN)
    assert doctor.look("--no-pod", code=0)["Kubernetes"]["level"] == "warning"


def test_settings_that_pods_cannot_use_start_no_pod(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORRY_IMAGE", "localhost/lorry:latest")
    found = doctor.look(code=1)
    assert found["LORRY_IMAGE"]["level"] == "failure"
    assert found["pod"]["level"] == "warning"
    assert doctor.kubeflow.runs == {}


def test_a_pod_that_does_not_start_is_explained_and_ended(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(run: dict[str, Any]) -> None:
        waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image: unauthorized"}
        pod = {
            "metadata": {"name": "inside", "labels": {"pipeline/runid": run["run_id"]}},
            "status": {"containerStatuses": [{"name": "main", "state": {"waiting": waiting}}]},
        }
        doctor.kubernetes.put(f"{API}/pods/inside", pod)

    doctor.kubeflow.on_start = wait
    monkeypatch.setattr("lorry_pipelines.diagnosis.kubeflow_checks._LOOK_SECONDS", 1.0)
    finding = doctor.look("--pod-seconds", "10", code=1)["pod"]
    assert "PENDING after 10 s; ImagePullBackOff: Back-off pulling image: unauthorized" in finding["text"]
    (run,) = doctor.kubeflow.runs.values()
    assert run["state"] == "CANCELING"


@pytest.mark.parametrize(
    ("pod", "status", "lines", "told"),
    [
        (
            "lorry-x-system-dag-driver-1",
            {
                "containerStatuses": [
                    {"name": "main", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
                ]
            },
            ["F1203 01:02:03.4 1 main.go:79] KFP driver: rpc error: connection refused"],
            "failed in Kubeflow's driver, before any step (exit code 1)",
        ),
        (
            "lorry-x-system-container-impl-1",
            {
                "containerStatuses": [
                    {"name": "main", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
                ]
            },
            ["I1203 01:02:03.4 1 launcher_v2.go:90] start", "reviews: fine-tuning"],
            "failed in the step (exit code 137, OOMKilled)\n  I1203",
        ),
        (
            "lorry-x-system-container-impl-1",
            {"containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 1}}}]},
            ["F1203 01:02:03.4 1 launcher_v2.go:90] failed to upload"],
            "failed in Kubeflow's launcher, before the step (exit code 1)",
        ),
        (
            "lorry-x-system-container-impl-1",
            {"initContainerStatuses": [{"name": "kfp-launcher", "state": {"terminated": {"exitCode": 2}}}]},
            [],
            "failed in Kubeflow's launcher, in its container kfp-launcher (exit code 2)",
        ),
        (
            "lorry-x-system-container-impl-1",
            {
                "phase": "Pending",
                "conditions": [{"status": "False", "reason": "Unschedulable", "message": "0/1 nodes fit"}],
            },
            [],
            "does not start (the scheduling): Unschedulable: 0/1 nodes fit",
        ),
    ],
)
def test_a_run_that_failed_before_its_step_says_which_pod_failed(
    kubernetes_server: KubernetesServer,
    doctor: Doctor,
    pod: str,
    status: dict[str, Any],
    lines: list[str],
    told: str,
) -> None:
    labels = {"pipeline/runid": "run"}
    kubernetes_server.put(
        f"{API}/pods/{pod}",
        {"metadata": {"name": pod, "labels": labels}, "status": {"phase": "Failed", **status}},
    )
    kubernetes_server.put(
        f"{API}/pods/other",
        {"metadata": {"name": "other", "labels": labels}, "status": {"phase": "Succeeded"}},
    )
    for line in lines:
        kubernetes_server.log(pod, line)
    (failure,) = read_pod_failures(KubernetesApi.open(NAMESPACE), "run")
    assert failure.startswith(f"pod {pod} {told}")
    assert failure.splitlines()[1:] == [f"  {line}" for line in lines]


def test_options_of_a_cluster_without_one_are_refused(doctor: Doctor) -> None:
    result = CliRunner().invoke(lorry, ["doctor", "--no-pod"])
    assert result.exit_code == 2
    assert "--cluster" in str(result.exception) + result.output


@pytest.mark.slow
def test_a_pod_tells_what_it_reaches(
    doctor: Doctor, s3_address: str, monkeypatch: pytest.MonkeyPatch, s3_server: Any
) -> None:
    monkeypatch.setenv("LORRY_STORE", s3_address)
    inherited = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    wait = doctor.run_pods(inherited | s3_server.list_variables())
    found = doctor.look(code=1)
    wait()
    assert found["image"]["level"] == "ok"
    assert "read and write" in found["store, from inside"]["text"]
    assert found["home, from inside"]["level"] == "ok"
    # Neither MLflow nor the claim's folder is on this machine.
    assert found["MLflow, from inside"]["level"] == "failure"
    assert found["bases, from inside"]["level"] == "failure"
    assert list(open_store(s3_address).list_keys("cluster_checks")) == []
    # A pod without credentials cannot tell anything: its run fails.
    wait = doctor.run_pods(inherited | {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"})
    finding = doctor.look(code=1)["pod"]
    wait()
    assert "its run is FAILED" in finding["text"]
    assert "#/runs/details/" in finding["todo"]
