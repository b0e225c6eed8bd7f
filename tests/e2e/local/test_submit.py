"""``lorry submit`` to a Kubeflow whose pods are processes of this machine: from files to a champion."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures.kubeflow_cluster import Cluster
from fixtures.kubeflow_server import TOKEN, KubeflowServer
from fixtures.s3_server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def cluster(workspace: Any, kubeflow: KubeflowServer, s3_server: S3Server, s3_address: str) -> Cluster:
    return Cluster(
        workspace,
        kubeflow,
        s3_server.list_variables(),
        s3_address,
        tracking_uri="http://mlflow.lorry.svc:5000",
        # The server of the compiled address is not on this machine.
        reached_by=f"sqlite:///{workspace.folder}/mlflow.db",
    )


def test_from_files_on_a_laptop_to_a_champion(cluster: Cluster) -> None:
    good = cluster.write_task("good")
    rows = cluster.workspace.write_rows("broken.jsonl", [{"text": "no label"}] * 20)
    broken = cluster.write_task("broken")
    wait = cluster.start_runs()

    # Rows of this machine are read before anything is copied or started.
    refused = cluster.submit(good, broken, "--wait", code=4)
    assert "broken.jsonl: has no column 'label'" in refused.err
    assert cluster.kubeflow.requests == []
    assert cluster.store.list_children("data") == []

    # Those in S3 are for pods to read.
    cluster.store.upload("elsewhere/broken.jsonl", rows)
    data = {"source": cluster.store.locate("elsewhere/broken.jsonl"), "max_length": 16}
    broken = cluster.write_task("broken", data=data)
    planned = json.loads(cluster.submit(good, broken, "--dry-run", "--json").out)
    assert planned["costs"]["tasks"]["good"]["expected_seconds"] is None
    assert planned["tasks"]["good"] == "its data are not in the store yet"
    assert "broken" in planned["tasks"]
    assert [(one["run"], one["tasks"]) for one in planned["runs"]] == [(None, list(planned["tasks"]))]
    assert cluster.kubeflow.requests == []
    assert cluster.store.list_children("data") == []

    finished = cluster.submit(good, broken, "--wait", "--json", code=12)
    wait()
    outcomes = {row["task"]: row["outcome"] for row in json.loads(finished.out)}
    assert outcomes == {"good": "promoted", "broken": "failed"}
    assert "broken failed in prepare_data" in finished.err
    (run,) = cluster.kubeflow.runs.values()
    assert f"{cluster.kubeflow.host}/#/runs/details/{run['run_id']}" in finished.err
    # What would have been done has a name that does not depend on where the data were.
    assert run["display_name"].startswith("lorry-")
    assert run["state"] == "FAILED"
    # Each names the other.
    rows = {row["task"]: row for row in json.loads(finished.out)}
    assert (rows["good"]["kfp_run"], rows["good"]["kfp_url"].rpartition("/")[2]) == (run["run_id"],) * 2
    assert rows["good"]["mlflow_run"]
    assert "MLflow: http://mlflow.lorry.svc:5000, runs tagged lorry.kfp_run" in run["description"]
    assert {Path(key).name for key in cluster.store.list_keys("data")} == {"good.jsonl"}
    assert cluster.store.list_children(f"runs/{run['run_id']}/tasks") == ["broken", "good"]

    # Nothing is stale: nothing is started, and nobody is asked.
    asked = len(cluster.kubeflow.requests)
    again = cluster.submit(good, "--wait")
    assert "Not trained again" in again.out
    assert len(cluster.kubeflow.requests) == asked


def test_the_same_work_is_started_once(cluster: Cluster) -> None:
    task = cluster.write_task("good")

    def submit() -> tuple[dict[str, Any], str]:
        done = cluster.submit(task, "--json")
        (run,) = json.loads(done.out)["runs"]
        return run, done.err

    first, _ = submit()
    assert (first["state"], first["tasks"]) == ("PENDING", ["good"])
    second, printed = submit()
    assert second["run"] == first["run"]
    assert "is PENDING already" in printed
    # A run that ended badly does not count.
    cluster.kubeflow.runs[first["run"]]["state"] = "CANCELED"
    third, _ = submit()
    assert third["run"] != first["run"]
    assert third["name"] == first["name"]
    # Other data are other work.
    with (cluster.workspace.folder / "good.jsonl").open("a") as stream:
        stream.write('{"text": "one more", "label": "good"}\n')
    fourth, _ = submit()
    assert fourth["name"] != first["name"]
    assert len(cluster.kubeflow.pipelines) == 1


def test_a_run_that_is_terminated_still_reports(cluster: Cluster) -> None:
    task = cluster.write_task("good")
    wait = cluster.start_runs()
    following = cluster.workspace.start("submit", task, "--wait", **cluster.submitting)
    while not any(
        cluster.store.list_keys(f"runs/{run}/tasks/good")
        for run in list(cluster.kubeflow.runs)
        if cluster.store.list_children(f"runs/{run}/tasks")
    ):
        assert following.poll() is None
        time.sleep(0.2)
    (run,) = cluster.kubeflow.runs.values()
    run["state"] = "CANCELING"
    _, printed = following.communicate(timeout=300)
    wait()
    assert following.returncode == 12, printed
    assert run["state"] == "CANCELED"
    assert "the run was cancelled before these were done: good" in printed
    assert "submit again" in printed
    assert cluster.store.read(f"runs/{run['run_id']}/report.json") is not None


def test_a_recurring_run_and_what_is_refused(cluster: Cluster) -> None:
    task = cluster.write_task("good")
    refused = cluster.submit(task, "--recurring", "0 0 3 * * *", code=2)
    assert "every run would read the same copy" in refused.err
    refused = cluster.submit(task, "--recurring", "0 3 * * *", code=2)
    assert "six fields" in refused.err
    cluster.kubeflow.token = "another"  # noqa: S105 - a token of the tests
    refused = cluster.submit(task, code=14)
    assert "LORRY_KUBEFLOW_TOKEN" in refused.err
    assert TOKEN not in refused.err
    cluster.kubeflow.token = TOKEN
    task = cluster.write_task("good", data={"source": "s3://adapters/somewhere/good.jsonl"})
    shown = json.loads(cluster.submit(task, "--recurring", "0 0 3 * * *", "--json").out)
    (recurring,) = shown["runs"]
    assert recurring["recurring"] in cluster.kubeflow.recurring
    assert shown["tasks"] == ["good"]


# The same is tried in processes, and submitting alone, in the ordinary tests.
@pytest.mark.exhaustive
def test_what_is_stale_is_retrained_on_the_cluster_once(cluster: Cluster) -> None:
    task = cluster.write_task("good", method={"name": "probe"}, train={})
    cluster.write_task("idle", method={"name": "probe"}, train={})
    wait = cluster.start_runs()

    def retrain(*arguments: str) -> dict[str, Any]:
        command = ("retrain", task, *arguments, "--target", "kubeflow", "--json")
        done: dict[str, Any] = json.loads(cluster.workspace.run(*command, **cluster.submitting).out)
        return done

    done = retrain()
    wait()
    (outcome,) = done["tasks"]
    assert (outcome["outcome"], outcome["new_version"], done["place"]) == ("promoted", 1, "kubeflow")
    (run,) = cluster.kubeflow.runs.values()
    assert (done["runs"], done["urls"][0].rpartition("/")[2]) == ([run["run_id"]], run["run_id"])
    assert cluster.store.read(f"runs/{run['run_id']}/fences/good.json") is not None

    # The data here are a file, and those that were trained from are in the store: the rows are the same.
    asked = len(cluster.kubeflow.requests)
    assert [each["outcome"] for each in retrain()["tasks"]] == ["fresh"]
    assert len(cluster.kubeflow.requests) == asked

    source = cluster.workspace.folder / "good.jsonl"
    rows = source.read_text("utf-8").splitlines(keepends=True)
    source.write_text("".join([*rows, *(row.replace('"the ', '"every ') for row in rows[:40])]), "utf-8")
    triggers = [
        cluster.workspace.start("retrain", task, "--target", "kubeflow", "--json", **cluster.submitting)
        for _ in range(2)
    ]
    told = [trigger.communicate(timeout=480) for trigger in triggers]
    wait()
    # The second may find the first at work, and leaves the task to it.
    assert sorted(trigger.returncode for trigger in triggers) in ([0, 0], [0, 21]), told
    outcomes = [json.loads(out)["tasks"][0] for out, _ in told]
    assert {each["reasons"][0] for each in outcomes if each["new_version"]} == {"data: 40 added rows"}
    assert len([each for each in outcomes if each["outcome"] in ("promoted", "refused")]) == 1, outcomes
    assert len(cluster.kubeflow.runs) == 2
    assert cluster.store.read("tasks/idle/head.json") is None


def test_a_time_limit_ends_the_run_on_the_cluster(cluster: Cluster) -> None:
    task = cluster.write_task("good")
    # Nothing starts it: it waits for a node.
    command = ("retrain", task, "--target", "kubeflow", "--time-limit", "0.02", "--json")
    done = json.loads(cluster.workspace.run(*command, code=21, **cluster.submitting).out)
    (outcome,) = done["tasks"]
    assert (outcome["outcome"], outcome["champion"]) == ("left", None)
    assert outcome["decision"] == "the time limit was reached before it was trained"
    (run,) = cluster.kubeflow.runs.values()
    assert run["state"] in ("CANCELING", "CANCELED")
