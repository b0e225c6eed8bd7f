"""Runs of the real command on a store on S3 and an MLflow on PostgreSQL, several at once."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from lorry_registry.stores import open_store
from lorry_stack.stack import Stack


@pytest.mark.exhaustive
def test_runs_and_reconciliations_at_once(
    workspace: Any, proxied_stack: Stack, use_stack: Callable[[Stack], dict[str, str]]
) -> None:
    variables = use_stack(proxied_stack) | {"LORRY_STORE": "s3://lorry/at-once"}
    tasks = [workspace.write_task(name) for name in ("mood-one", "mood-two")]
    commands = [("run", task, "--json") for task in tasks] + [("reconcile", "--json")] * 2
    processes = [workspace.start(*command, **variables) for command in commands]
    for command, process in zip(commands, processes, strict=True):
        out, err = process.communicate(timeout=480)
        assert process.returncode == 0, (command, out, err)
    for name in ("mood-one", "mood-two"):
        settled = workspace.run_json("reconcile", name, **variables)
        assert settled == {name: []}

    from mlflow.tracking import MlflowClient

    client = MlflowClient(variables["MLFLOW_TRACKING_URI"])
    registries = set()
    for name in ("mood-one", "mood-two"):
        (version,) = client.search_model_versions(f"name = '{name}'")
        assert client.get_registered_model(name).aliases == {"champion": version.version}
        experiment = client.get_experiment_by_name(name)
        (run,) = client.search_runs([experiment.experiment_id])
        assert (run.info.status, version.run_id) == ("FINISHED", run.info.run_id)
        registries |= {
            experiment.tags["lorry.registry"],
            client.get_registered_model(name).tags["lorry.registry"],
        }
    assert len(registries) == 1
    diagnosis = {entry["subject"]: entry for entry in workspace.run_json("doctor", **variables)}
    assert diagnosis["registry"]["details"] == {"id": registries.pop(), "tasks": 2}
    assert diagnosis["MLflow: rights"]["level"] == "ok"

    # Somebody else's experiment of that name is found before anything is spent.
    third = workspace.write_task("mood-three")
    client.create_experiment("mood-three")
    refused = workspace.run("run", third, code=13, **variables)
    assert "an experiment named 'mood-three' exists that Lorry did not make" in refused.err
    listed = workspace.run_json("tasks", **variables)
    assert [entry["task"] for entry in listed] == ["mood-one", "mood-two"]


@pytest.mark.exhaustive
def test_triggers_at_once_and_one_that_is_killed(
    workspace: Any,
    proxied_stack: Stack,
    use_stack: Callable[[Stack], dict[str, str]],
    rows: Callable[..., list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = "s3://lorry/retraining"
    variables = use_stack(proxied_stack) | {"LORRY_STORE": address}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    store = open_store(address)
    task = workspace.write_task("mood", method={"name": "probe"}, train={})

    triggers = [workspace.start("retrain", task, "--json", **variables) for _ in range(3)]
    told = [trigger.communicate(timeout=480) for trigger in triggers]
    assert [trigger.returncode for trigger in triggers] == [0, 0, 0], told
    outcomes = [json.loads(out)["tasks"][0]["outcome"] for out, _ in told]
    assert outcomes.count("promoted") == 1, told
    assert set(outcomes) <= {"promoted", "left", "fresh"}

    def count_versions() -> int:
        stored = store.read("tasks/mood/head.json")
        assert stored is not None
        versions: int = json.loads(stored.content)["versions"]
        return versions

    assert count_versions() == 1
    workspace.write_rows("mood.jsonl", rows(200, 5))
    killed = workspace.start("retrain", task, "--json", **variables)
    workspace.wait_until(lambda: count_versions() == 2, "the ledger has the version")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    workspace.wait_until(lambda: not workspace.list_processes(), "the run's processes end", 30)
    (done,) = workspace.run_json("retrain", task, **variables)["tasks"]
    assert done["outcome"] in ("finished", "fresh")
    assert workspace.run_json("reconcile", "mood", **variables) == {"mood": []}

    from mlflow.tracking import MlflowClient

    client = MlflowClient(variables["MLFLOW_TRACKING_URI"])
    assert len(client.search_model_versions("name = 'mood'")) == count_versions() == 2
