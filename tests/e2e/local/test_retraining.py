"""Retraining as a story: four tasks, what happens to them, and what each trigger does about it."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.four_tasks import MOVE_BASE, NAMES, FourTasks, describe_sections, draw_messages

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Story(FourTasks):
    """A repository of four tasks in ``tasks/``, whose heads are fitted in a moment."""

    def __init__(self, workspace: Any, make_rows: Callable[..., list[dict[str, Any]]]) -> None:
        super().__init__(workspace, make_rows)
        base = {"base": {"model": f"../{workspace.base.name}"}}
        for name in NAMES:
            workspace.write_task(name, **describe_sections(f"../{name}.jsonl"), **base)
        (workspace.folder / "tasks").mkdir()
        for name in NAMES:
            (workspace.folder / f"{name}.yaml").rename(self.find(name))

    def find(self, name: str) -> Path:
        return Path(self.workspace.folder, "tasks", f"{name}.yaml")

    def list_states(self, code: int) -> dict[str, str]:
        return {task["task"]: task["state"] for task in self.workspace.run_json("stale", code=code)}

    def retrain(self, *arguments: str, code: int = 0) -> dict[str, dict[str, Any]]:
        done = self.workspace.run_json("retrain", *arguments, code=code)
        return {task["task"]: task for task in done["tasks"]}

    def find_champion(self, name: str) -> int:
        found: int = self.workspace.run_json("show", name)["version"]
        return found

    def list_outcomes(self, *arguments: str) -> dict[str, str]:
        return {name: task["outcome"] for name, task in self.retrain(*arguments).items()}

    def count_versions(self, name: str) -> int:
        head = self.workspace.store / "tasks" / name / "head.json"
        if not head.exists():
            return 0
        versions: int = json.loads(head.read_text("utf-8"))["versions"]
        return versions

    def count_mlflow_versions(self, name: str) -> int:
        query = "select count(*) from model_versions where name = ?"
        with sqlite3.connect(self.workspace.home / "mlflow.db") as database:
            count: int = database.execute(query, [name]).fetchone()[0]
        return count


@pytest.fixture
def story(make_workspace: Callable[[str], Any], rows: Callable[..., Any]) -> Story:
    """Four tasks on real messages where there are some, or else on rows that are made."""
    workspace = make_workspace("story")
    own = workspace.folder / "base"
    shutil.copytree(workspace.base, own)
    workspace.base = own
    data = os.environ.get("LORRY_TEST_DATA")
    return Story(workspace, draw_messages(Path(data)) if data else rows)


def test_the_story_of_four_tasks(story: Story) -> None:
    workspace = story.workspace
    assert story.list_states(20) == dict.fromkeys(NAMES, "new")
    # There is little to learn from: many labels of one task are wrong.
    story.shuffle("films")
    assert story.list_outcomes() == dict.fromkeys(NAMES, "promoted")

    tell_of_new_rows_and_wrong_labels(story)
    tell_of_words_and_a_rollback(story)
    tell_of_two_triggers(story)
    tell_of_a_trigger_that_is_asked_to_end(story)
    tell_of_a_killed_trigger(story)
    tell_of_a_base_that_moves(story)
    workspace.check_sound()


def tell_of_new_rows_and_wrong_labels(story: Story) -> None:
    """New rows are learned, and promoted by the gate; shuffled labels are learned, and refused."""
    story.add("films", 500)
    story.shuffle("food")
    found = {task["task"]: task for task in story.workspace.run_json("stale", code=20)}
    assert [found[name]["state"] for name in NAMES] == ["stale", "stale", "fresh", "fresh"]
    assert found["films"]["rows"] == {"added": 500, "removed": 0, "relabelled": 0}
    assert found["food"]["rows"]["relabelled"] > 20
    planned = story.workspace.run_json("retrain", "--dry-run", "--max-tasks", "1")
    assert {task["known_from"] for task in planned} == {"v1"}
    assert all(task["expected_seconds"] > 0 and task["memory_bytes"] for task in planned)
    assert [task["left"] is None for task in planned].count(True) == 1
    done = story.retrain()
    assert {name: task["outcome"] for name, task in done.items()} == {
        "films": "promoted",
        "food": "refused",
        "places": "fresh",
        "service": "fresh",
    }
    films, food = done["films"], done["food"]
    assert (films["old_version"], films["new_version"], films["champion"]) == (1, 2, 2)
    assert films["reasons"] == ["data: 500 added rows"]
    assert (food["new_version"], food["champion"]) == (2, 1)
    assert "over v1 on the same rows" in food["decision"]


def tell_of_words_and_a_rollback(story: Story) -> None:
    """Words about a task change nothing, and what was rolled back does not come back unasked."""
    text = story.find("places").read_text("utf-8").replace("Whether it was good.", "Whether it is good.")
    story.find("places").write_text(f"{text}owner: somebody else\n", "utf-8")
    story.workspace.run("rollback", "films", "--reason", "it was rude")
    assert story.list_states(0) == {
        "films": "rolled back",
        "food": "refused",
        "places": "fresh",
        "service": "fresh",
    }
    # What a tag in MLflow asks for is looked at, and then asked for no more.
    with sqlite3.connect(story.workspace.home / "mlflow.db") as database:
        tag = "insert into model_version_tags (name, version, key, value) values (?, 1, 'lorry.retrain', '')"
        database.execute(tag, ["places"])
    assert story.workspace.run("retrain").out == "nothing to do: 4 tasks, none of them stale\n"
    with sqlite3.connect(story.workspace.home / "mlflow.db") as database:
        assert not list(database.execute("select * from model_version_tags where key = 'lorry.retrain'"))
    assert story.find_champion("films") == 1


def tell_of_two_triggers(story: Story) -> None:
    """Two that are started at once do the work once."""
    runs = len(story.workspace.list_runs())
    story.add("places", 40)
    triggers = [story.workspace.start("retrain", "places", "--json") for _ in range(2)]
    told = [trigger.communicate(timeout=480) for trigger in triggers]
    outcomes = [json.loads(out)["tasks"][0]["outcome"] for out, _ in told]
    codes = [trigger.returncode for trigger in triggers]
    assert codes == [21 if outcome == "left" else 0 for outcome in outcomes], told
    assert len({"promoted", "refused"} & {*outcomes}) == 1, outcomes
    assert len({"left", "fresh"} & {*outcomes}) == 1, outcomes
    assert len(story.workspace.list_runs()) == runs + 1
    assert story.count_versions("places") == 2


def tell_of_a_trigger_that_is_asked_to_end(story: Story) -> None:
    """As a job that is cancelled is: it ends its processes, and gives its lease back."""
    workspace, runs = story.workspace, len(story.workspace.list_runs())
    story.add("service", 40)
    ended = workspace.start("retrain", "service", "--json")
    workspace.wait_until(lambda: len(workspace.list_runs()) > runs, "the run begins")
    ended.terminate()
    _, err = ended.communicate(timeout=60)
    assert ended.returncode == 143, err
    assert "\nterminated" in err
    workspace.wait_until(lambda: not workspace.list_processes(), "the run's processes end", 5)
    lease = json.loads((workspace.store / "work" / "service.json").read_text("utf-8"))
    assert (lease["process"], lease["is_half_done"]) == (None, True)
    assert story.count_versions("service") == 1


def tell_of_a_killed_trigger(story: Story) -> None:
    """What one that was killed has written to the ledger alone is in MLflow after the next."""
    workspace, runs = story.workspace, len(story.workspace.list_runs())
    story.add("service", 40)
    killed = workspace.start("retrain", "service", "--json")
    workspace.wait_until(lambda: story.count_versions("service") == 2, "the ledger has the version")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    workspace.wait_until(lambda: not workspace.list_processes(), "the run's processes end", 30)
    known = story.count_mlflow_versions("service")
    done = story.retrain()
    outcome = done.pop("service")["outcome"]
    # It was killed at the last moment, and there may have been nothing left to do.
    assert outcome == "finished" or (outcome, known) == ("fresh", 2)
    assert {task["outcome"] for task in done.values()} == {"fresh"}
    assert story.count_mlflow_versions("service") == story.count_versions("service") == 2
    assert len(workspace.list_runs()) == runs + 1


def tell_of_a_base_that_moves(story: Story) -> None:
    """All four are stale; a time limit that is reached leaves them to the next time, which does them all."""
    base = str(story.workspace.base)
    subprocess.run([sys.executable, "-c", MOVE_BASE, base], check=True)
    cut = story.retrain("--time-limit", "0.05", code=21)
    assert all(task["reasons"][0].startswith("base: ") for task in cut.values())
    assert {task["outcome"] for task in cut.values()} == {"left"}
    assert set(story.list_outcomes().values()) <= {"promoted", "refused"}
    assert {*story.list_states(0).values()} <= {"fresh", "refused"}
