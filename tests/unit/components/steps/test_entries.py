"""The edge of the steps: what a component's strings lead to, run in sequence as the graph runs them."""

import json
import logging
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lorry_components.steps.evaluate.entry import main as evaluate
from lorry_components.steps.finetune.entry import main as finetune
from lorry_components.steps.finetune.mlflow_log import MlflowLog
from lorry_components.steps.gate.entry import main as gate
from lorry_components.steps.prepare_data.entry import main as prepare_data
from lorry_components.steps.register.entry import main as register
from lorry_components.steps.register.mlflow_publication import reconcile_task
from lorry_components.steps.report.entry import main as report
from lorry_components.steps.runtime.outcomes import PROCEED, STEPS, STOP, Outcome, RunRecord
from lorry_components.steps.runtime.step_context import StepContext, enter_step
from lorry_components.steps.verdict.entry import main as judge
from lorry_registry.errors import RunFailedError, StoreError, TrackingError
from lorry_registry.leases.work_leases import WorkLease, WorkState, take_lease
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.records.adapter_names import label_method
from lorry_registry.records.provenance import find_provenance, read_provenance
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_references import refer_to_task, store_task
from lorry_registry.tasks.task_spec import TaskSpec


class Graph:
    """The steps of one task in one run, with the places that Kubeflow would give them."""

    def __init__(self, folder: Path, store: LocalStore, uri: str) -> None:
        self.folder = folder
        self.store = store
        self.uri = uri
        self.metadata: dict[str, dict[str, Any]] = {step: {} for step in STEPS}

    def run(
        self,
        spec: TaskSpec,
        run: str,
        *,
        force: bool = False,
        until: str = "register",
        checkpoints: str | None = None,
        before_evaluation: Callable[[], object] = bool,
        before_registration: Callable[[], object] = bool,
    ) -> list[str]:
        """Run the steps; return what each told the graph, as far as the graph goes."""
        place, metadata = self.folder / run, self.metadata
        data, candidate, evaluation, decision = (
            str(place / name) for name in ("data", "candidate", "evaluation", "decision")
        )
        places = {
            "task": str(store_task(self.store, spec)),
            "run": run,
            "store": str(self.store.root),
            "tracking_uri": self.uri,
        }
        told = [prepare_data(**places, force=force, data=data, metadata=metadata["prepare_data"])]
        if told[0] == STOP:
            return told
        kept = {"checkpoints": str(self.folder / "checkpoints") if checkpoints is None else checkpoints}
        trained = {**kept, "data": data, "candidate": candidate, "force": force}
        evaluated = {"data": data, "candidate": candidate, "evaluation": evaluation}
        registered = {
            **kept,
            "data": data,
            "candidate": candidate,
            "evaluation": evaluation,
            "decision": decision,
        }
        adapter = SimpleNamespace(metadata=metadata["register"])
        steps: list[Callable[[], str]] = [
            lambda: finetune(**places, **trained, metadata=metadata["finetune"], kfp_run=run),
            lambda: evaluate(
                **places, **evaluated, plot=str(place / "plot.html"), metadata=metadata["evaluate"]
            ),
            lambda: gate(**places, evaluation=evaluation, decision=decision, metadata=metadata["gate"]),
            lambda: register(**places, **registered, adapter=adapter),
        ]
        told.append(steps[0]())
        before_evaluation()
        told += [step() for step in steps[1 : min(3, STEPS.index(until))]]
        before_registration()
        return told + [step() for step in steps[3 : STEPS.index(until)]]

    def report(self, run: str, *specs: TaskSpec) -> None:
        page = self.folder / run / "report" / "page.html"
        report(
            tasks=[str(refer_to_task(spec)) for spec in specs],
            run=run,
            store=str(self.store.root),
            tracking_uri=self.uri,
            page=str(page),
        )

    def judge(self, run: str, *specs: TaskSpec) -> None:
        judge(tasks=[str(refer_to_task(spec)) for spec in specs], run=run, store=str(self.store.root))

    def read_outcomes(self, run: str, task: str) -> list[Outcome]:
        return RunRecord(self.store, run).read(task)

    def read_report(self, run: str) -> list[dict[str, Any]]:
        document = json.loads((self.store.root / "runs" / run / "report.json").read_text())
        tasks: list[dict[str, Any]] = document["tasks"]
        return tasks


@pytest.fixture
def graph(tmp_path: Path, store: LocalStore, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> Graph:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LORRY_PROGRESS", str(tmp_path / "progress"))
    # What an entry sets for its whole process must not outlive the test.
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging, "_logRecordFactory", logging.getLogRecordFactory())
    return Graph(tmp_path, store, mlflow_uri)


COMMIT = "0123456789abcdef0123456789abcdef01234567"
ONE_STEP = {"epochs": None, "steps": 1}
MakeSpec = Callable[..., TaskSpec]


def check_provenance(graph: Graph, spec: TaskSpec, run: str, folder: Path) -> None:
    """Check that the registered version says by which run it was made, and that this can be verified."""
    registry = Registry(graph.store, folder / "another-cache")
    (version,) = registry.list_versions(spec.name)
    digest = find_provenance(version.registered)
    assert digest is not None
    statement = read_provenance(graph.store, registry.read_manifest(version.adapter_id), digest)
    details = statement["predicate"]["runDetails"]
    assert details["metadata"]["invocationId"] == run
    assert details["metadata"]["startedOn"] <= details["metadata"]["finishedOn"]
    assert details["byproducts"][0]["uri"] == f"runs:/{version.registered.details['mlflow_run_id']}"
    made_from = {
        entry["name"]: entry for entry in statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    }
    assert made_from["source"]["digest"] == {"gitCommit": COMMIT}
    assert list(registry.verify_task(spec.name)) == [(version, None)]


def test_a_run_from_rows_to_a_champion(
    graph: Graph, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("classification")
    monkeypatch.setenv("LORRY_SOURCES", json.dumps({spec.name: {"commit": COMMIT, "is_dirty": True}}))
    assert graph.run(spec, "run-1") == [PROCEED] * 5
    graph.report("run-1", spec)
    (task,) = graph.read_report("run-1")
    assert (task["status"], task["step"], task["failure"]) == ("promoted", "register", None)
    details = task["details"]
    assert details["prepare_data"]["reason"] == "it has no adapter yet"
    assert details["finetune"]["steps"] == 12
    assert details["evaluate"]["metric"] == "accuracy"
    assert details["gate"]["passed"] is True
    assert details["register"]["version"] == 1
    assert details["register"]["warning"] == ""
    assert "tiny-classification" in (tmp_path / "run-1" / "report" / "page.html").read_text()
    assert (tmp_path / "run-1" / "plot.html").read_text().startswith('<img alt="tiny-classification"')
    # What Kubeflow keeps of the artifacts.
    assert graph.metadata["register"]["store_uri"].startswith("file://")
    assert graph.metadata["register"]["version"] == 1
    check_provenance(graph, spec, "run-1", tmp_path)
    assert graph.metadata["evaluate"]["accuracy"] == details["evaluate"]["value"]
    assert graph.metadata["gate"] == {"passed": True}
    # What a display sees last.
    progress = json.loads((tmp_path / "progress" / "tiny-classification.json").read_text())
    assert progress["step"] == "register"
    # What MLflow shows.
    index = MlflowIndex(graph.uri)
    run_id = details["finetune"]["mlflow_run_id"]
    run = index._client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["lorry.run"] == "run-1"
    # No pod, no Kubeflow to lead to.
    assert "lorry.kfp_run" not in run.data.tags
    assert run.data.tags["lorry.version"] == "1"
    assert run.data.tags["lorry.decision"] == "promoted"
    assert run.data.tags["lorry.metric"] == "accuracy"
    assert (run.data.tags["mlflow.source.name"], run.data.tags["mlflow.source.type"]) == ("lorry", "LOCAL")
    page = index.find_trainings(spec.name)
    assert page is not None
    assert page.view == "lorry"
    # What the data card warns of is on the run's page and on the version's.
    (warning, *_) = details["prepare_data"]["warnings"]
    assert f"- about its data: {warning}" in run.data.tags["mlflow.note.content"]
    version = index._client.get_model_version(spec.name, "1")
    assert f"- {warning}" in version.description
    assert f"| Data&emsp; | {Path(spec.data.source).name} |" in version.description
    assert ("probe" in run.data.metrics) == (details["evaluate"]["linear_probe"] is not None)
    assert run.info.run_name == f"{spec.name} v1 {label_method(spec.describe_recipe())}"
    assert "None" not in run.data.params.values()
    assert {each.dataset.name for each in run.inputs.dataset_inputs} == {spec.name}
    assert {each.tags[0].value for each in run.inputs.dataset_inputs} == {"train", "validation", "test"}
    for each in run.inputs.dataset_inputs:
        part = each.tags[0].value
        profile = json.loads(each.dataset.profile)
        assert profile["num_rows"] == details["prepare_data"]["rows"][part]
        assert profile["sha256"][7:].startswith(each.dataset.digest)
        assert json.loads(each.dataset.source) == {"uri": Path(spec.data.source).name}
    assert {item.path for item in index._client.list_artifacts(run_id)} == {
        *("data_card.json", "decision.json", "evaluation", "report.html", "task.yaml"),
    }
    experiment = index._client.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.note.content"]
    assert run.data.params["method.name"] == "lora"
    assert run.data.params["train.learning_rate"] == str(details["finetune"]["learning_rate"])
    assert {"train/loss", "validation/accuracy", "test.accuracy"} <= run.data.metrics.keys()
    assert run.data.metrics["baseline.majority class"] == details["evaluate"]["baselines"][0]["value"]
    assert index.read_aliases(spec.name) == {"champion": details["register"]["adapter_id"]}
    assert {item.path for item in index._client.list_artifacts(run_id, "evaluation")} == {
        "evaluation/evaluation.json",
        "evaluation/predictions.jsonl",
        "evaluation/predictions.png",
    }


def test_a_second_run_has_nothing_to_do_and_says_why(graph: Graph, make_spec: MakeSpec) -> None:
    spec = make_spec(train=ONE_STEP)
    graph.run(spec, "run-1")
    assert graph.run(spec, "run-2") == [STOP]
    graph.report("run-2", spec)
    (task,) = graph.read_report("run-2")
    assert task["status"] == "current"
    assert task["reason"] == "v1 was trained from the same data, base and recipe"
    # Unless it is told to; then training gives the same adapter.
    assert graph.run(spec, "run-3", force=True) == [PROCEED] * 5
    graph.report("run-3", spec)
    (task,) = graph.read_report("run-3")
    assert task["status"] == "unchanged"
    assert task["details"]["finetune"]["resumed_from"] == 0
    assert task["details"]["register"]["version"] == 1


def test_the_same_rows_in_another_order_are_not_trained_again(
    graph: Graph, make_spec: MakeSpec, tiny_source: Callable[[str], Path], tmp_path: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    lines = tiny_source("regression").read_text("utf-8").splitlines(keepends=True)
    source.write_text("".join(lines), "utf-8")
    spec = make_spec(train=ONE_STEP, data={"source": str(source)})
    graph.run(spec, "run-1")
    source.write_text("".join(reversed(lines)), "utf-8")
    assert graph.run(spec, "run-2") == [STOP]
    (outcome,) = graph.read_outcomes("run-2", spec.name)
    assert outcome.status == "current"
    assert outcome.details["version"] == 1
    assert str(outcome.details["reason"]).endswith("the source has another form, and the same rows")
    source.write_text("".join(lines[:-1]), "utf-8")
    assert graph.run(spec, "run-3") == [PROCEED] * 5
    (outcome, *_) = graph.read_outcomes("run-3", spec.name)
    assert outcome.details["reason"] == "data changed since v1 (1 removed row)"


def test_a_run_whose_work_was_taken_over_registers_nothing(graph: Graph, make_spec: MakeSpec) -> None:
    spec = make_spec(train=ONE_STEP)
    slow = take_lease(graph.store, spec.name)
    assert isinstance(slow, WorkLease)
    slow.fence("run-1")

    def take_over() -> None:
        # As if it had ended a while ago, unheard of.
        key = f"work/{spec.name}.json"
        stored = graph.store.read(key)
        assert stored is not None
        state = WorkState.model_validate_json(stored.content)
        ended = state.model_copy(update={"until": state.since - timedelta(hours=1)})
        graph.store.replace(key, ended.model_dump_json().encode())
        assert isinstance(take_lease(graph.store, spec.name), WorkLease)

    assert graph.run(spec, "run-1", before_registration=take_over)[-1] == STOP
    failed = graph.read_outcomes("run-1", spec.name)[-1]
    assert failed.failure is not None
    assert (failed.step, failed.failure.error) == ("register", "ConflictError")
    assert "lease expired" in failed.failure.message
    assert Registry(graph.store, graph.folder / "cache").list_versions(spec.name) == []


def test_a_training_begins_with_the_champion_where_that_is_asked_for(
    graph: Graph, make_spec: MakeSpec
) -> None:
    spec = make_spec(train={**ONE_STEP, "start": "champion"})
    registry = Registry(graph.store, graph.folder / "cache")
    # There is none yet.
    graph.run(spec, "run-1")
    first = registry.resolve(spec.name)
    assert first.manifest.inputs.makeup.start is None
    longer = make_spec(train={**ONE_STEP, "steps": 2, "start": "champion"})
    graph.run(longer, "run-2")
    second = registry.list_versions(spec.name)[-1]
    resolved = registry.read_manifest(second.adapter_id).inputs.makeup
    assert (second.number, resolved.start) == (2, first.adapter_id)
    outcomes = {outcome.step: outcome.details for outcome in graph.read_outcomes("run-2", spec.name)}
    assert outcomes["finetune"]["start"] == 1
    # What it began with makes it no staler: the champion may be another one now.
    assert graph.run(longer, "run-3") == [STOP]
    narrow = {"name": "lora", "r": 2, "targets": ["query"]}
    other = make_spec(train={**ONE_STEP, "start": "champion"}, method=narrow)
    graph.run(other, "run-4")
    outcomes = {outcome.step: outcome.details for outcome in graph.read_outcomes("run-4", spec.name)}
    assert "does not fit" in str(outcomes["finetune"]["start_refused"])


def list_kept(graph: Graph) -> set[str]:
    return {key.rpartition("/")[2] for key in graph.store.list_keys("checkpoints")}


def test_checkpoints_in_the_store_go_when_the_adapter_is_registered(
    graph: Graph, make_spec: MakeSpec
) -> None:
    spec, seen = make_spec(train=ONE_STEP), set[str]()
    looking = {"before_evaluation": lambda: seen.update(list_kept(graph)), "checkpoints": "store"}
    assert graph.run(spec, "run-1", **looking) == [PROCEED] * 5
    assert {"complete.json", "trained.safetensors", "optimizer.pt", "rng_state.pth"} <= seen
    assert list_kept(graph) == set()
    assert not (graph.folder / "checkpoints").exists()
    # What a forced run kept goes as well.
    seen.clear()
    assert graph.run(spec, "run-2", force=True, **looking) == [PROCEED] * 5
    assert "complete.json" in seen
    assert list_kept(graph) == set()


def test_checkpoints_that_cannot_be_removed_fail_no_run(
    graph: Graph, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_store: LocalStore, key: str) -> None:
        raise StoreError("removing is not allowed", where=key)

    monkeypatch.setattr(LocalStore, "delete", refuse)
    assert graph.run(make_spec(train=ONE_STEP), "run-1", checkpoints="store") == [PROCEED] * 5
    assert "checkpoints stay behind in" in caplog.text
    assert "complete.json" in list_kept(graph)


def test_checkpoints_in_a_place_that_cannot_be_written_are_refused_before_training(
    graph: Graph, make_spec: MakeSpec
) -> None:
    spec = make_spec(train=ONE_STEP)
    assert graph.run(spec, "run-1", checkpoints="gs://bucket/x") == [PROCEED, STOP, STOP, STOP, STOP]
    graph.report("run-1", spec)
    with pytest.raises(RunFailedError):
        graph.judge("run-1", spec)
    (task,) = graph.read_report("run-1")
    assert "no store serves addresses of the form gs://" in task["reason"]
    assert not (graph.folder / "run-1" / "candidate" / "adapter").exists()


def test_a_task_that_fails_is_reported_and_fails_the_run(graph: Graph, make_spec: MakeSpec) -> None:
    good = make_spec(train=ONE_STEP)
    bad = make_spec("classification", {"name": "lora", "targets": ["no_such_layer"]})
    assert graph.run(good, "run-1") == [PROCEED] * 5
    assert graph.run(bad, "run-1") == [PROCEED, STOP, STOP, STOP, STOP]
    graph.report("run-1", good, bad)
    with pytest.raises(RunFailedError) as caught:
        graph.judge("run-1", good, bad)
    assert str(caught.value) == "run-1: 1 of 2 tasks failed\n  -> tiny-classification in finetune"
    first, second = graph.read_report("run-1")
    assert first["status"] == "promoted"
    assert (second["status"], second["step"]) == ("failed", "finetune")
    assert "no linear layer of BertModel is called 'no_such_layer'" in second["reason"]


def test_a_run_that_was_cut_short_is_reported_as_killed(graph: Graph, make_spec: MakeSpec) -> None:
    spec = make_spec(train=ONE_STEP)
    graph.run(spec, "run-1", until="finetune")
    graph.report("run-1", spec)
    with pytest.raises(RunFailedError, match="tiny-regression in evaluate"):
        graph.judge("run-1", spec)
    (task,) = graph.read_report("run-1")
    assert "evaluate ended without a report" in task["reason"]
    run_id = task["details"]["finetune"]["mlflow_run_id"]
    assert MlflowIndex(graph.uri)._client.get_run(run_id).info.status == "FAILED"


def test_a_step_that_dies_before_its_work_says_of_what(
    graph: Graph, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(train=ONE_STEP)
    graph.run(spec, "run-1", until="finetune")
    # As a file of that name would be that is no such module.
    monkeypatch.setitem(sys.modules, "lorry_components.steps.evaluate.entry", None)
    task = str(refer_to_task(spec))
    assert enter_step("evaluate", task=task, run="run-1", store=str(graph.store.root)) == STOP
    graph.report("run-1", spec)
    (told,) = graph.read_report("run-1")
    assert (told["status"], told["step"]) == ("failed", "evaluate")
    assert told["reason"].startswith("ModuleNotFoundError: import of lorry_components.steps.evaluate.entry")


@pytest.mark.parametrize(
    ("task", "name", "reason"),
    [
        ("{", "unreadable-021fb596", "neither NAME@sha256:DIGEST nor JSON"),
        ('["films"]', "unreadable-", "JSON, but not an object"),
        ('{"name": "films"}', "films", "base: is missing"),
        ('{"name": "../films"}', "unreadable-", "name"),
        ("films@sha256:" + "0" * 64, "films", "is not in the store"),
        ("films@sha256:00", "unreadable-", "neither"),
        ("[" * 100_000, "unreadable-", "neither"),
    ],
)
def test_a_task_that_cannot_be_read_is_reported_and_stops_no_other(
    graph: Graph, make_spec: MakeSpec, tmp_path: Path, task: str, name: str, reason: str
) -> None:
    places = {"run": "run-1", "store": str(graph.store.root), "tracking_uri": graph.uri}
    data = str(tmp_path / "data")
    assert enter_step("prepare_data", task=task, force=False, data=data, metadata={}, **places) == STOP
    good = make_spec(train=ONE_STEP)
    graph.run(good, "run-1", until="finetune")
    tasks = [str(refer_to_task(good)), task]
    report(tasks=tasks, page=str(tmp_path / "page.html"), **places)
    told = graph.read_report("run-1")[1]
    assert told["task"].startswith(name)
    assert (told["status"], told["step"]) == ("failed", "prepare_data")
    assert reason in told["reason"]
    with pytest.raises(RunFailedError, match=f"{told['task']} in prepare_data"):
        judge(tasks=tasks, run="run-1", store=str(graph.store.root))


def test_an_injected_mlflow_run_is_used(
    graph: Graph, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(train=ONE_STEP)
    index = MlflowIndex(graph.uri)
    run_id = index.open_run(spec.name, name="by the backend", tags={})
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    graph.run(spec, "run-1", until="finetune")
    assert graph.metadata["finetune"]["mlflow_run_id"] == run_id
    experiment = index.ensure_experiment(spec.name)
    assert [run.info.run_id for run in index._client.search_runs([experiment])] == [run_id]


def test_a_run_ends_well_when_mlflow_goes_away_after_training(
    graph: Graph, make_spec: MakeSpec, caplog: pytest.LogCaptureFixture
) -> None:
    spec = make_spec(train=ONE_STEP)
    database = Path(graph.uri.removeprefix("sqlite:///"))
    kept = database.with_suffix(".kept")

    def break_mlflow() -> None:
        database.rename(kept)
        database.write_text("this is no database\n" * 100)

    with caplog.at_level(logging.WARNING):
        assert graph.run(spec, "run-1", before_evaluation=break_mlflow) == [PROCEED] * 5
        graph.report("run-1", spec)
    assert "the evaluation of tiny-regression" in caplog.text
    (task,) = graph.read_report("run-1")
    assert task["status"] == "promoted"
    assert "lorry reconcile tiny-regression" in task["details"]["register"]["warning"]
    kept.replace(database)
    registry = Registry(graph.store, graph.folder / "another-cache")
    changes = reconcile_task(MlflowIndex(graph.uri), registry, spec.name)
    assert changes[0] == "v1 was missing and is recorded now"


@pytest.mark.parametrize(("minimum_gain", "passes"), [(0.0, True), (1.0, False)])
def test_a_candidate_is_judged_anew_when_the_champion_changed(
    graph: Graph, make_spec: Callable[..., TaskSpec], minimum_gain: float, passes: bool
) -> None:
    def specify(learning_rate: float) -> TaskSpec:
        gate = {"minimum": -1.0, "minimum_gain": minimum_gain, "confidence": 0.5}
        return make_spec(train={"learning_rate": learning_rate}, gate=gate)

    def overtake() -> None:
        assert graph.run(specify(1e-2), "run-2") == [PROCEED] * 5

    # The gate sees no champion; meanwhile another run of the same task makes its adapter the champion.
    assert graph.run(specify(1e-3), "run-1", before_registration=overtake) == [PROCEED] * 5
    registry = Registry(graph.store, graph.folder / "another-cache")
    event = registry.ledger.read_history("tiny-regression")[-1]
    assert (event.version, event.champion_before) == (2, 1)
    assert event.champion_after == (2 if passes else 1)
    assert event.reasons[0] == "judged anew, since the champion had changed meanwhile"
    assert "over v1 on the same rows" in event.reasons[-1]


def read_task(graph: Graph, spec: TaskSpec, run: str) -> dict[str, Any]:
    graph.report(run, spec)
    (task,) = graph.read_report(run)
    return task


def test_a_refused_version_is_judged_by_a_changed_gate_without_training(
    graph: Graph, make_spec: MakeSpec
) -> None:
    def specify(minimum: float) -> TaskSpec:
        return make_spec(train=ONE_STEP, gate={"minimum": minimum})

    assert graph.run(specify(2.0), "run-1") == [PROCEED] * 5
    # The same gate refuses it once: that is not said to be up to date, for the task has no champion.
    assert graph.run(specify(2.0), "run-2") == [STOP]
    task = read_task(graph, specify(2.0), "run-2")
    assert task["status"] == "challenger"
    assert task["reason"].startswith(
        "v1 was trained from the same data, base and recipe, and the same gate refused it: pearson "
    )
    # Another gate that refuses it, too, is recorded, and does not judge it again.
    assert graph.run(specify(1.5), "run-3") == [PROCEED] * 5
    task = read_task(graph, specify(1.5), "run-3")
    assert task["status"] == "challenger"
    assert task["reason"].startswith("judged anew, without training: another gate refused it; ")
    assert task["details"]["finetune"] == {"reused": 1}
    assert graph.run(specify(1.5), "run-4") == [STOP]
    assert "is below the minimum 1.500" in read_task(graph, specify(1.5), "run-4")["reason"]
    # One that lets it pass makes it the champion.
    assert graph.run(specify(-1.0), "run-5") == [PROCEED] * 5
    assert read_task(graph, specify(-1.0), "run-5")["status"] == "promoted"
    registry = Registry(graph.store, graph.folder / "another-cache")
    events = registry.ledger.read_history("tiny-regression")
    assert [(event.action, event.version) for event in events] == [
        ("register", 1),
        ("judge", 1),
        ("promote", 1),
    ]
    assert registry.resolve("tiny-regression").version == 1
    assert [error for _, error in registry.verify_task("tiny-regression")] == [None]
    index = MlflowIndex(graph.uri)
    assert index.read_aliases("tiny-regression") == {"champion": events[0].adapter_id}
    assert len(index.list_model_versions("tiny-regression")) == 1
    # And then there is nothing to do, whatever the gate says.
    assert graph.run(specify(3.0), "run-6") == [STOP]
    assert read_task(graph, specify(3.0), "run-6")["status"] == "current"


def test_a_version_that_was_refused_by_hand_is_judged_once(
    graph: Graph, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lorry_components.steps.register import step

    spec = make_spec(train=ONE_STEP, gate={"minimum": 2.0})
    with monkeypatch.context() as by_hand:
        by_hand.setattr(step, "GATE_DETAIL", "something-else")
        assert graph.run(spec, "run-1") == [PROCEED] * 5
    assert graph.run(spec, "run-2") == [PROCEED] * 5
    assert graph.run(spec, "run-3") == [STOP]


def test_training_goes_on_when_mlflow_goes_away(
    mlflow_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    index = MlflowIndex(mlflow_uri)
    calls: list[object] = []

    def fail(*arguments: Any, **_: Any) -> None:
        calls.append(arguments)
        raise TrackingError("it is down", where="mlflow")

    monkeypatch.setattr(index, "log_metrics", fail)
    monkeypatch.setattr(index, "log_parameters", fail)
    log = MlflowLog(index, "a-run")
    with caplog.at_level(logging.WARNING):
        for step in range(5):
            log({"train/loss": 1.0}, step)
        log.log_parameters({"train": {"learning_rate": 1e-3}})
    assert len(calls) == 1
    assert caplog.text.count("MLflow takes no more metrics of this training") == 1


def test_a_training_that_ended_is_not_lost_when_mlflow_goes_away(
    graph: Graph, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log_parameters = MlflowIndex.log_parameters

    def fail_late(index: MlflowIndex, run_id: str, parameters: dict[str, Any]) -> None:
        if parameters.keys() == {"train", "head"}:
            raise TrackingError("it is down", where="mlflow")
        log_parameters(index, run_id, parameters)

    monkeypatch.setattr(MlflowIndex, "log_parameters", fail_late)
    assert graph.run(make_spec(train=ONE_STEP), "run-1", until="finetune") == [PROCEED] * 2
    assert caplog.text.count("MLflow takes no more metrics of this training") == 1


def test_in_a_pod_the_runs_of_mlflow_and_kubeflow_name_each_other(
    graph: Graph, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("LORRY_KUBEFLOW_HOST", "https://kubeflow.example/pipeline")
    spec = make_spec("classification", train=ONE_STEP)
    graph.run(spec, "kfp-1", until="finetune")
    run_id = graph.metadata["finetune"]["lorry.mlflow_run"]
    index = MlflowIndex(graph.uri)
    link = "https://kubeflow.example/pipeline/#/runs/details/kfp-1"
    tags = index._client.get_run(run_id).data.tags
    assert (tags["lorry.kfp_run"], tags["lorry.kfp_url"]) == ("kfp-1", link)
    assert tags["mlflow.note.content"] == f"Kubeflow run: [kfp-1]({link})"
    # A registered version has a description of its own, and the way to Kubeflow below it.
    graph.run(spec, "kfp-2", force=True)
    run_id = graph.metadata["finetune"]["lorry.mlflow_run"]
    note = index._client.get_run(run_id).data.tags["mlflow.note.content"]
    assert note.startswith("Champion: ")
    assert note.endswith(f"Kubeflow run: [kfp-2]({link.replace('kfp-1', 'kfp-2')})")
    # Of the machine that this took its time on, only a pod's says something of the next.
    (outcome,) = (one for one in graph.read_outcomes("kfp-2", spec.name) if one.step == "finetune")
    assert outcome.details["placed"] == spec.resources.model_dump(mode="json")


def test_an_entry_reads_the_environment(graph: Graph, make_spec: MakeSpec) -> None:
    spec = make_spec()
    entry = StepContext.open(
        "gate", task=spec.model_dump_json(), run="run-1", store=str(graph.store.root), tracking_uri=graph.uri
    )
    assert entry.spec == spec
    assert entry.injected_run is None
    assert entry.find_mlflow_run() is None
    assert isinstance(entry.store, LocalStore)
    assert entry.store.root == graph.store.root
    entry.progress(3, 7, "half way")
    progress = json.loads((graph.folder / "progress" / "tiny-regression.json").read_text())
    assert progress == {"step": "gate", "done": 3, "total": 7, "note": "half way"}
