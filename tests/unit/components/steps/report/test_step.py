"""The exit step: what became of every task, whatever happened."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from lorry_components.steps.report.page import render_page
from lorry_components.steps.report.report_reading import read_report
from lorry_components.steps.report.step import RunReport, report_run
from lorry_components.steps.runtime.outcomes import STEPS, Nothing, RunRecord, run_step
from lorry_registry.errors import TrainingError
from lorry_registry.stores import LocalStore

Finish = Callable[..., None]


@pytest.fixture
def record(store: LocalStore) -> RunRecord:
    return RunRecord(store, "run-1")


@pytest.fixture
def finish(record: RunRecord) -> Finish:
    """Return a function that runs the steps of a task up to one, with the details of the last."""

    def start(task: str, last: str, **details: Any) -> None:
        for step in STEPS[: STEPS.index(last) + 1]:
            given = details if step == last else {}
            run_step(record, task, step, lambda given=given: given)

    return start


def fail(record: RunRecord, task: str, step: str, message: str = "it broke") -> None:
    def body() -> Any:
        raise TrainingError(message, where=task)

    run_step(record, task, step, body)


def report(record: RunRecord, store: LocalStore, *tasks: str) -> RunReport:
    return report_run(record, tasks, store)


def test_a_new_champion_and_a_challenger(record: RunRecord, store: LocalStore, finish: Finish) -> None:
    finish("first", "register", promoted=True, version=3, reasons=["it is better", "by far"])
    finish("second", "register", promoted=False, version=2, reasons=["too weak"])
    found = report(record, store, "first", "second")
    assert [(task.task, task.status, task.step, task.reason) for task in found.tasks] == [
        ("first", "promoted", "register", "it is better; by far"),
        ("second", "challenger", "register", "too weak"),
    ]
    assert found.failed == []
    assert found.tasks[0].details["register"]["version"] == 3
    assert set(found.tasks[0].seconds) == set(STEPS)


def test_an_adapter_that_was_known_is_unchanged(record: RunRecord, store: LocalStore, finish: Finish) -> None:
    finish("first", "register", promoted=False, known=True, version=1, reasons=["the same again"])
    (task,) = report(record, store, "first").tasks
    assert (task.status, task.reason) == ("unchanged", "the same again")


def test_a_task_that_is_up_to_date(record: RunRecord, store: LocalStore) -> None:
    def body() -> Any:
        raise Nothing("v2 was trained from the same data, base and recipe")

    run_step(record, "first", "prepare_data", body)
    (task,) = report(record, store, "first").tasks
    assert (task.status, task.failure) == ("current", None)
    assert task.reason == "v2 was trained from the same data, base and recipe"


@pytest.mark.parametrize("step", STEPS)
def test_a_failed_step_is_named_with_its_error(
    record: RunRecord, store: LocalStore, finish: Finish, step: str
) -> None:
    if step != STEPS[0]:
        finish("first", STEPS[STEPS.index(step) - 1])
    fail(record, "first", step, "the loss became nan")
    found = report(record, store, "first")
    (task,) = found.tasks
    assert (task.status, task.step) == ("failed", step)
    assert "the loss became nan" in task.reason
    assert task.failure is not None
    assert task.failure.error == "TrainingError"
    assert found.failed == [task]


@pytest.mark.parametrize("killed", STEPS)
def test_a_step_that_was_killed_is_named(
    record: RunRecord, store: LocalStore, finish: Finish, killed: str
) -> None:
    if killed != STEPS[0]:
        finish("first", STEPS[STEPS.index(killed) - 1])
    (task,) = report(record, store, "first").tasks
    assert (task.status, task.step) == ("failed", killed)
    assert f"{killed} ended without a report: it was killed" in task.reason
    assert task.failure is not None
    assert (task.failure.error, task.failure.exit_code) == ("Killed", 1)


def test_every_task_of_the_run_is_reported(record: RunRecord, store: LocalStore, finish: Finish) -> None:
    finish("second", "register", promoted=True, version=1, reasons=[])
    fail(record, "third", "prepare_data")
    found = report(record, store, "first", "second", "third")
    assert [(task.task, task.status) for task in found.tasks] == [
        ("first", "failed"),
        ("second", "promoted"),
        ("third", "failed"),
    ]
    stored = store.read("runs/run-1/report.json")
    assert stored is not None
    assert RunReport.model_validate(json.loads(stored.content)) == found


def test_a_report_may_be_written_again(record: RunRecord, store: LocalStore, finish: Finish) -> None:
    report(record, store, "first")
    finish("first", "register", promoted=True, version=1, reasons=[])
    assert report(record, store, "first").tasks[0].status == "promoted"
    stored = store.read("runs/run-1/report.json")
    assert stored is not None
    assert json.loads(stored.content)["tasks"][0]["status"] == "promoted"


# The page


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def read_page(found: RunReport) -> _Tags:
    page = _Tags()
    page.feed(render_page(read_report(found)))
    return page


@pytest.mark.parametrize(
    ("page", "is_linked"),
    [("https://mlflow.example/#/experiments/1/runs/2", True), ("javascript:alert(1)", False), (7, False)],
)
def test_a_task_leads_to_its_run_in_mlflow(
    record: RunRecord, store: LocalStore, page: Any, is_linked: bool
) -> None:
    run_step(record, "first", "finetune", lambda: {"mlflow_run_id": "2", "mlflow_url": page})
    html = render_page(read_report(report_run(record, ["first"], store)))
    assert ('<a href="https://mlflow.example/#/experiments/1/runs/2">first</a>' in html) is is_linked
    assert "javascript" not in html


def test_the_page_shows_each_task(record: RunRecord, store: LocalStore, finish: Finish) -> None:
    run_step(record, "first", "prepare_data", dict)
    run_step(record, "first", "finetune", dict)
    baselines = [{"name": "mean", "value": 0.0}, {"name": "guess & luck", "value": 0.1251}]
    evaluated = {"metric": "pearson", "value": 0.91234, "baselines": baselines}
    run_step(record, "first", "evaluate", lambda: evaluated)
    run_step(record, "first", "gate", dict)
    run_step(
        record, "first", "register", lambda: {"promoted": True, "version": 4, "reasons": ["it is the first"]}
    )
    fail(record, "second", "prepare_data", "no such file")
    page = read_page(report(record, store, "first", "second"))
    assert page.tags.count("tr") == 3
    for word in (
        "Run run-1",
        "promoted",
        "v4",
        "pearson 0.912",
        "guess & luck 0.125",
        "it is the first",
        "failed in prepare_data",
        "no such file",
    ):
        assert word in page.text


def test_the_page_takes_no_html_from_a_task(record: RunRecord, store: LocalStore, finish: Finish) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'too'"
    run_step(record, "first", "prepare_data", dict)
    run_step(record, "first", "finetune", dict)
    run_step(record, "first", "evaluate", lambda: {"metric": attack, "value": 0.5})
    run_step(record, "first", "gate", dict)
    run_step(record, "first", "register", lambda: {"promoted": True, "version": 1, "reasons": [attack]})
    fail(record, "second", "prepare_data", attack)
    found = report(record, store, "first", "second")
    # Even where a name got past its form.
    found = found.model_copy(
        update={
            "run": attack,
            "tasks": (*found.tasks, found.tasks[1].model_copy(update={"task": attack, "step": attack})),
        }
    )
    page = read_page(found)
    assert not {"script", "img"} & set(page.tags)
    assert page.text.count(attack) >= 5
