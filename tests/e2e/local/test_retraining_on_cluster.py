"""The story of four tasks once more: store on S3, MLflow on PostgreSQL, and runs that Kubeflow executes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_stack.stack import Stack

from fixtures.four_tasks import MOVE_BASE, NAMES, FourTasks, describe_sections, draw_messages
from fixtures.kubeflow_cluster import Cluster
from fixtures.kubeflow_server import KubeflowServer

pytestmark = [pytest.mark.exhaustive, pytest.mark.slow, pytest.mark.timeout(3000)]

STORE = "s3://lorry/story"


class ClusterStory(FourTasks):
    """Four tasks whose retraining is submitted."""

    def __init__(self, cluster: Cluster, make_rows: Callable[..., list[dict[str, Any]]]) -> None:
        super().__init__(cluster.workspace, make_rows)
        self.cluster = cluster
        self.files = [cluster.write_task(name, **describe_sections(f"{name}.jsonl")) for name in NAMES]
        self.wait = cluster.start_runs()
        self.tracking_uri = cluster.environment["MLFLOW_TRACKING_URI"]
        self.here = cluster.submitting | {"MLFLOW_TRACKING_URI": self.tracking_uri}

    def run_json(self, *arguments: str, code: int = 0) -> Any:
        return self.workspace.run_json(*arguments, code=code, **self.here)

    def list_states(self, code: int) -> dict[str, str]:
        return {task["task"]: task["state"] for task in self.run_json("stale", *self.files, code=code)}

    def retrain(self, *arguments: str) -> dict[str, dict[str, Any]]:
        command = ("retrain", *self.files, *arguments, "--target", "kubeflow")
        done = self.workspace.run_json(*command, **self.cluster.submitting)
        self.wait()
        return {task["task"]: task for task in done["tasks"]}

    def list_outcomes(self, *arguments: str) -> dict[str, str]:
        return {name: task["outcome"] for name, task in self.retrain(*arguments).items()}

    def start(self, name: str) -> "subprocess.Popen[str]":
        file = self.files[NAMES.index(name)]
        started: subprocess.Popen[str] = self.workspace.start(
            "retrain", file, "--target", "kubeflow", "--json", **self.cluster.submitting
        )
        return started

    def count_versions(self, name: str) -> int:
        stored = self.cluster.store.read(f"tasks/{name}/head.json")
        versions: int = json.loads(stored.content)["versions"] if stored else 0
        return versions


@pytest.fixture
def story(
    workspace: Any,
    kubeflow: KubeflowServer,
    proxied_stack: Stack,
    use_stack: Callable[[Stack], dict[str, str]],
    rows: Callable[..., Any],
) -> ClusterStory:
    data = os.environ.get("LORRY_TEST_DATA")
    variables = use_stack(proxied_stack)
    cluster = Cluster(
        workspace,
        kubeflow,
        variables,
        STORE,
        # An address of this machine is refused: in a pod it means the pod itself.
        tracking_uri="http://mlflow.lorry.svc:5000",
        reached_by=variables["MLFLOW_TRACKING_URI"],
    )
    return ClusterStory(cluster, draw_messages(Path(data)) if data else rows)


def test_the_story_of_four_tasks_on_a_cluster(story: ClusterStory) -> None:
    kubeflow = story.cluster.kubeflow
    assert story.list_states(20) == dict.fromkeys(NAMES, "new")
    story.shuffle("films")
    assert story.list_outcomes() == dict.fromkeys(NAMES, "promoted")
    assert len(kubeflow.runs) == 1

    # New rows are learned and promoted; shuffled labels are learned and refused.
    story.add("films", 500)
    story.shuffle("food")
    assert [story.list_states(20)[name] for name in NAMES] == ["stale", "stale", "fresh", "fresh"]
    done = story.retrain()
    assert {name: task["outcome"] for name, task in done.items()} == {
        "films": "promoted",
        "food": "refused",
        "places": "fresh",
        "service": "fresh",
    }
    assert done["films"]["reasons"] == ["data: 500 added rows"]
    assert (done["food"]["new_version"], done["food"]["champion"]) == (2, 1)
    assert "over v1 on the same rows" in done["food"]["decision"]
    assert len(kubeflow.runs) == 2

    # Words change nothing, and what was rolled back does not come back unasked.
    places = Path(story.files[NAMES.index("places")])
    text = places.read_text("utf-8")
    places.write_text(text.replace("Whether it was good.", "Whether it is good."), "utf-8")
    story.workspace.run("rollback", "films", "--reason", "it was rude", **story.here)
    assert set(story.list_outcomes().values()) <= {"fresh", "refused", "rolled back"}
    assert len(kubeflow.runs) == 2
    assert story.run_json("show", "films")["version"] == 1

    # Two triggers at once submit one run.
    story.add("places", 40)
    triggers = [story.start("places") for _ in range(2)]
    told = [trigger.communicate(timeout=900) for trigger in triggers]
    story.wait()
    assert [trigger.returncode for trigger in triggers] == [0, 0], told
    assert len(kubeflow.runs) == 3
    assert story.count_versions("places") == 2

    # One that is killed leaves a run that goes on; the next trigger tells what became of it.
    story.add("service", 40)
    killed = story.start("service")
    story.workspace.wait_until(lambda: len(kubeflow.runs) == 4, "the run is submitted", 300)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    story.wait()
    assert story.count_versions("service") == 2
    assert set(story.list_outcomes().values()) <= {"fresh", "refused", "rolled back", "finished"}
    assert len(kubeflow.runs) == 4

    # Another base makes all four stale, and the one that was rolled back as well.
    subprocess.run([sys.executable, "-c", MOVE_BASE, str(story.cluster.base)], check=True)
    assert set(story.list_states(20).values()) == {"stale"}
    assert set(story.list_outcomes().values()) <= {"promoted", "refused"}
    assert {*story.list_states(0).values()} <= {"fresh", "refused"}

    from mlflow.tracking import MlflowClient

    client = MlflowClient(story.tracking_uri)
    for name in NAMES:
        assert story.run_json("reconcile", name) == {name: []}
        assert len(client.search_model_versions(f"name = '{name}'")) == story.count_versions(name)
    story.workspace.run("verify", "--all", **story.here)
