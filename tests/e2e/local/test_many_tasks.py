"""Five hundred tasks in one run on this machine: arguments, loop and report hold them."""

import json
from typing import Any

import pytest

pytestmark = [pytest.mark.exhaustive, pytest.mark.slow, pytest.mark.timeout(3600)]

TASKS, TRAINED = 500, 4
PATIENCE = 3500


def test_five_hundred_tasks_in_one_run(workspace: Any) -> None:
    # A first step takes two seconds, a training with all its steps half a minute: so few are trained, and the
    # others find no data. Each is an iteration of the loop all the same, and has an outcome in the report.
    files = []
    for number in range(TASKS):
        name = f"task-{number:03}"
        source = {"source": "missing.jsonl"} if number >= TRAINED else {"source": "task-000.jsonl"}
        data = {"max_length": 16, "split": {"validation": 0.2, "test": 0.2, "seed": number}} | source
        sections = {"data": data} if number else {}
        train = {"epochs": None, "steps": 1, "batch_size": 16}
        files.append(workspace.write_task(name, train=train, **sections))
    process = workspace.start("run", *files)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 12, out + err
    report = json.loads(next(workspace.store.glob("runs/*/report.json")).read_text("utf-8"))
    assert len(report["tasks"]) == TASKS
    trained = [task for task in report["tasks"] if task["status"] == "promoted"]
    assert [task["task"] for task in trained] == [f"task-{number:03}" for number in range(TRAINED)]
    failed = [task for task in report["tasks"] if task["status"] == "failed"]
    assert len(failed) == TASKS - TRAINED
    assert {task["step"] for task in failed} == {"prepare_data"}
    assert all("there is no such file" in task["failure"]["message"] for task in failed)
