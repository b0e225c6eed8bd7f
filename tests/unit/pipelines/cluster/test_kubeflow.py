"""Kubeflow over HTTP, with the real client: nothing is made twice, and every refusal says what to do."""

from pathlib import Path
from typing import Any

import pytest

from lorry_pipelines.cluster import kubeflow_requests
from lorry_pipelines.cluster.kubeflow import Kubeflow, Run, RunOrder
from lorry_pipelines.cluster.kubeflow_access import KubeflowAccess
from lorry_registry.errors import ClusterError, UsageError
from lorry_registry.retries import RetryPolicy

from fixtures.kubeflow_server import TOKEN, KubeflowServer

QUICK = RetryPolicy(attempts=3, first_seconds=0.01)


def connect(server: KubeflowServer, **access: Any) -> Kubeflow:
    return Kubeflow(KubeflowAccess(host=server.host, **access), QUICK)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text("pipelineInfo: {name: lorry}\n---\nplatforms: {}\n")
    return path


def start(kubeflow: Kubeflow, package: Path, name: str = "lorry-12") -> Run:
    version = kubeflow.upload_version("lorry", "abc-12", package, "films")
    order = RunOrder(name, version, description="films")
    return kubeflow.start_run(kubeflow.ensure_experiment("nightly"), order)


def test_a_version_and_an_experiment_are_made_once(kubeflow: KubeflowServer, package: Path) -> None:
    client = connect(kubeflow)
    first = client.upload_version("lorry", "abc-12", package, "films")
    assert client.upload_version("lorry", "abc-12", package, "films") == first
    other = client.upload_version("lorry", "abc-13", package, "films")
    assert (other.pipeline, other.id != first.id) == (first.pipeline, True)
    assert {version["name"] for version in kubeflow.versions.values()} == {"lorry", "abc-12", "abc-13"}
    # Both documents of the file arrive.
    assert kubeflow.versions[first.id]["pipeline_spec"] == [
        {"pipelineInfo": {"name": "lorry"}},
        {"platforms": {}},
    ]
    assert client.ensure_experiment("nightly") == client.ensure_experiment("nightly")
    assert len(kubeflow.experiments) == 1


def test_a_run_is_started_and_found_again_on_any_page(kubeflow: KubeflowServer, package: Path) -> None:
    client = connect(kubeflow)
    started = [start(client, package) for _ in range(5)]
    start(client, package, "other")
    kubeflow.page = 2
    experiment = client.ensure_experiment("nightly")
    assert [run.id for run in client.list_runs(experiment, "lorry-12")] == [run.id for run in started]
    assert client.get_run(started[0].id).state == "PENDING"
    assert client.link_run(started[0].id) == f"{kubeflow.host}/#/runs/details/{started[0].id}"
    kubeflow.runs[started[0].id] |= {"state": "FAILED", "error": {"code": 9, "message": "no node"}}
    ended = client.get_run(started[0].id)
    assert (ended.has_ended, ended.message) == (True, "no node")


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        *((state, False) for state in ("PENDING", "RUNNING", "CANCELING", "PAUSED")),
        *((state, True) for state in ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")),
    ],
)
def test_which_states_are_last_ones(state: str, ended: bool) -> None:
    assert Run("1", "lorry", state).has_ended is ended


@pytest.mark.parametrize("fault", ["lose", "drop", 500, 503, 429])
@pytest.mark.parametrize(
    "request_",
    ["POST /runs", "POST /experiments", "POST /pipelines/upload", "POST /pipelines/upload_version"],
)
def test_what_is_created_is_created_once_whatever_happens_to_the_answer(
    kubeflow: KubeflowServer, package: Path, request_: str, fault: str | int
) -> None:
    kubeflow.faults = [(request_, fault)]
    run = start(connect(kubeflow), package)
    assert kubeflow.faults == []
    assert list(kubeflow.runs) == [run.id]
    assert len(kubeflow.experiments) == 1
    assert len(kubeflow.pipelines) == 1
    assert sorted(version["name"] for version in kubeflow.versions.values()) == ["abc-12", "lorry"]


@pytest.mark.parametrize("fault", ["drop", 500, 502, 503, 504, 429])
def test_a_question_is_asked_again(kubeflow: KubeflowServer, package: Path, fault: str | int) -> None:
    client = connect(kubeflow)
    run = start(client, package)
    kubeflow.faults = [(f"GET /runs/{run.id}", fault)] * 2
    assert client.get_run(run.id) == run
    assert kubeflow.faults == []


def test_a_server_that_stays_away_is_an_error_with_its_address(
    kubeflow: KubeflowServer, package: Path
) -> None:
    client = connect(kubeflow)
    run = start(client, package)
    kubeflow.faults = [(f"GET /runs/{run.id}", 503)] * 9
    with pytest.raises(ClusterError, match="HTTP 503: planned by the test") as caught:
        client.get_run(run.id)
    assert caught.value.where == kubeflow.host
    assert "nothing is started twice" in caught.value.todo
    assert len(kubeflow.faults) == 6


def test_somebody_else_was_first(kubeflow: KubeflowServer, package: Path) -> None:
    """Between looking and creating, the same version and experiment appear."""
    mine, other = connect(kubeflow), connect(kubeflow)
    looked = mine.find_pipeline

    def look_too_early(name: str) -> str | None:
        known = looked(name)
        if known is None:
            other.upload_version("lorry", "abc-12", package, "films")
        return known

    mine.find_pipeline = look_too_early  # type: ignore[method-assign]
    version = mine.upload_version("lorry", "abc-12", package, "films")
    assert version.id in kubeflow.versions
    assert len(kubeflow.pipelines) == 1


def test_nobody_is_asked_twice_who_refuses(kubeflow: KubeflowServer) -> None:
    kubeflow.token = TOKEN
    with pytest.raises(ClusterError, match="HTTP 401") as caught:
        connect(kubeflow)
    assert "LORRY_KUBEFLOW_TOKEN" in caught.value.todo
    assert kubeflow.requests == ["GET /healthz"]


def test_a_token_a_cookie_and_a_token_file_open_the_door(kubeflow: KubeflowServer, tmp_path: Path) -> None:
    kubeflow.token = TOKEN
    assert connect(kubeflow, token=TOKEN).find_pipeline("lorry") is None
    path = tmp_path / "token"
    path.write_text("expired")
    with pytest.raises(ClusterError, match="HTTP 401"):
        connect(kubeflow, token_path=path)
    path.write_text(TOKEN)
    client = connect(kubeflow, token_path=path)
    # A service account's token is renewed in its file while a run is followed.
    kubeflow.token = "renewed"  # noqa: S105 - a token of the tests
    path.write_text("renewed")
    assert client.find_pipeline("lorry") is None
    kubeflow.token, kubeflow.cookie = "", "authservice_session=abc"
    assert connect(kubeflow, cookie="authservice_session=abc").find_pipeline("lorry") is None
    with pytest.raises(ClusterError, match="HTTP 401"):
        connect(kubeflow)


def test_no_secret_is_shown(kubeflow: KubeflowServer) -> None:
    access = KubeflowAccess(kubeflow.host, token=TOKEN, cookie="session=hunter2")
    assert TOKEN not in repr(access)
    assert "hunter2" not in repr(access)


def test_with_users_a_namespace_is_needed_and_used(kubeflow: KubeflowServer, package: Path) -> None:
    kubeflow.users = {"alice", "bob"}
    with pytest.raises(UsageError, match="namespace"):
        connect(kubeflow)
    alice, bob = connect(kubeflow, namespace="alice"), connect(kubeflow, namespace="bob")
    mine, other = start(alice, package), start(bob, package)
    assert mine.id != other.id
    assert {pipeline["namespace"] for pipeline in kubeflow.pipelines.values()} == {"alice", "bob"}
    assert len(kubeflow.experiments) == 2
    with pytest.raises(ClusterError, match="HTTP 403"):
        connect(kubeflow, namespace="carol").ensure_experiment("nightly")


def test_without_users_no_namespace_is_sent(kubeflow: KubeflowServer, package: Path) -> None:
    start(connect(kubeflow, namespace="somewhere"), package)
    assert "namespace" not in next(iter(kubeflow.pipelines.values()))


def test_a_recurring_run_replaces_the_former_one(kubeflow: KubeflowServer, package: Path) -> None:
    client = connect(kubeflow)
    version = client.upload_version("lorry", "abc-12", package, "films")
    experiment = client.ensure_experiment("nightly")

    def schedule(cron: str) -> str:
        order = RunOrder("nightly", version, {"force": True}, service_account="runner")
        return client.replace_recurring(experiment, order, cron=cron)

    first = schedule("0 0 3 * * *")
    (made,) = kubeflow.recurring.values()
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == ("1", True, "ENABLE")
    assert made["runtime_config"] == {"parameters": {"force": True}}
    assert made["service_account"] == "runner"
    kubeflow.faults = [("POST /recurringruns", "lose")]
    second = schedule("0 0 4 * * *")
    assert second != first
    assert list(kubeflow.recurring) == [second]
    with pytest.raises(ClusterError, match="not a supported format") as caught:
        schedule("0 3 * * *")
    assert "correct what it names" in caught.value.todo
    assert list(kubeflow.recurring) == [second]


def test_a_login_page_is_not_taken_for_an_answer(kubeflow: KubeflowServer) -> None:
    kubeflow.faults = [("GET /healthz", "page")]
    with pytest.raises(ClusterError):
        connect(kubeflow)


def test_a_slow_server_is_given_up(kubeflow: KubeflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeflow_requests, "_TIMEOUT", (0.1, 0.1))
    kubeflow.seconds = 0.5
    with pytest.raises(ClusterError, match=r"(?i)time"):
        connect(kubeflow)


def test_nobody_listens(kubeflow: KubeflowServer) -> None:
    with pytest.raises(ClusterError, match="healthz"):
        Kubeflow(KubeflowAccess("http://127.0.0.1:1"), QUICK)


@pytest.mark.parametrize("host", ["", "kubeflow", "ftp://kubeflow", "http://", "http://[::1"])
def test_what_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="not the address of Kubeflow"):
        Kubeflow(KubeflowAccess(host))


def test_a_password_in_the_address_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        Kubeflow(KubeflowAccess("https://me:hunter2@kubeflow"))
    assert "hunter2" not in str(caught.value)
