"""Retraining as a story: four tasks, what happens to them, and what each trigger does about it."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NAMES = ["films", "food", "places", "service"]
# One more word in the vocabulary's order makes another base of the same form.
MOVE_BASE = """
import sys, torch
from safetensors.torch import load_file, save_file
path = sys.argv[1] + "/model.safetensors"
tensors = load_file(path)
tensors["encoder.layer.0.output.dense.bias"] += 0.01
save_file(tensors, path, metadata={"format": "pt"})
"""


class Story:
    """A repository of four tasks in ``tasks/``, whose heads are fitted in a moment."""

    def __init__(self, workspace: Any, make_rows: Callable[..., list[dict[str, Any]]]) -> None:
        self.workspace = workspace
        self._make_rows = make_rows
        for number, name in enumerate(NAMES):
            self.rows: dict[str, list[dict[str, Any]]] = getattr(self, "rows", {})
            self.rows[name] = make_rows(80, number)
            workspace.write_task(
                name,
                data={
                    "source": f"../{name}.jsonl",
                    "max_length": 16,
                    "split": {"validation": 0.2, "test": 0.2},
                },
                method={"name": "probe"},
                train={},
                base={"model": f"../{workspace.base.name}"},
                gate={"minimum_rows": 10, "baseline": "none"},
                description="Whether it was good.",
            )
            self.write(name)
        (workspace.folder / "tasks").mkdir()
        for name in NAMES:
            (workspace.folder / f"{name}.yaml").rename(self.find(name))

    def find(self, name: str) -> Path:
        return Path(self.workspace.folder, "tasks", f"{name}.yaml")

    def write(self, name: str) -> None:
        self.workspace.write_rows(f"{name}.jsonl", self.rows[name])

    def add(self, name: str, count: int, seed: int = 9) -> None:
        self.rows[name] += [{**row, "text": f"{row['text']} again"} for row in self._make_rows(count, seed)]
        self.write(name)

    def shuffle(self, name: str) -> None:
        chance = random.Random(3)  # noqa: S311
        for row in self.rows[name]:
            row["label"] = chance.choice(["good", "bad"])
        self.write(name)

    def list_states(self, code: int) -> dict[str, str]:
        return {task["task"]: task["state"] for task in self.workspace.run_json("stale", code=code)}

    def retrain(self, *arguments: str) -> dict[str, dict[str, Any]]:
        done = self.workspace.run_json("retrain", *arguments)
        return {task["task"]: task for task in done["tasks"]}

    def find_champion(self, name: str) -> int:
        found: int = self.workspace.run_json("resolve", name)["version"]
        return found

    def list_outcomes(self, *arguments: str) -> dict[str, str]:
        return {name: task["outcome"] for name, task in self.retrain(*arguments).items()}

    def count_versions(self, name: str) -> int:
        head = self.workspace.store / "tasks" / name / "head.json"
        if not head.exists():
            return 0
        versions: int = json.loads(head.read_text("utf-8"))["versions"]
        return versions


@pytest.fixture
def story(make_workspace: Callable[[str], Any], rows: Callable[..., Any]) -> Iterator[Story]:
    import shutil

    workspace = make_workspace("story")
    own = workspace.folder / "base"
    shutil.copytree(workspace.base, own)
    workspace.base = own
    yield Story(workspace, rows)


def test_the_story_of_four_tasks(story: Story) -> None:
    workspace = story.workspace
    assert story.list_states(20) == dict.fromkeys(NAMES, "new")
    # With little to learn from: half of the labels of one task are wrong.
    story.shuffle("films")
    assert story.list_outcomes() == dict.fromkeys(NAMES, "promoted")
    assert story.list_states(0) == dict.fromkeys(NAMES, "fresh")
    assert workspace.run("retrain").out.startswith("nothing to do: 4 tasks")

    # 1. New rows for one task: that one is trained, and promoted by the gate.
    story.add("films", 500)
    (films,) = workspace.run_json("stale", "films", code=20)
    assert films["rows"] == {"added": 500, "removed": 0, "relabelled": 0}
    planned = workspace.run_json("retrain", "--dry-run")
    assert [task["task"] for task in planned] == ["films"]
    assert planned[0]["expected_seconds"] > 0
    assert planned[0]["known_from"] == "v1"
    done = story.retrain()
    assert {name: task["outcome"] for name, task in done.items()} == {
        **dict.fromkeys(NAMES, "fresh"),
        "films": "promoted",
    }
    assert (done["films"]["old_version"], done["films"]["new_version"]) == (1, 2)
    assert done["films"]["reasons"] == ["data: 500 added rows"]

    # 2. Rows with shuffled labels: trained, refused, the champion stays.
    story.shuffle("food")
    done = story.retrain("food")
    assert (done["food"]["outcome"], done["food"]["champion"]) == ("refused", 1)
    assert "relabelled" in done["food"]["reasons"][0]
    assert "over v1 on the same rows" in done["food"]["decision"]
    assert story.list_states(0) == {**dict.fromkeys(NAMES, "fresh"), "food": "refused"}

    # 4. Words about a task change nothing.
    text = story.find("places").read_text("utf-8").replace("Whether it was good.", "Whether it is good.")
    story.find("places").write_text(f"{text}owner: somebody else\n", "utf-8")
    assert story.list_states(0)["places"] == "fresh"

    # 7. What was rolled back does not come back unasked, until something changes.
    workspace.run("rollback", "films", "--reason", "it was rude")
    assert story.list_states(0)["films"] == "rolled back"
    assert story.list_outcomes("films") == {"films": "fresh"}
    assert story.find_champion("films") == 1

    # A budget, and a number of tasks, leave the rest for the next time.
    for name in ("places", "service"):
        story.add(name, 30)
    done = story.retrain("--max-tasks", "1")
    assert sorted(task["outcome"] for task in done.values())[:2] == ["fresh", "fresh"]
    assert [task["outcome"] for task in done.values()].count("left") == 1

    # 3. The base moves: all four.
    subprocess.run([sys.executable, "-c", MOVE_BASE, str(workspace.base)], check=True)
    assert story.list_states(20) == dict.fromkeys(NAMES, "stale")
    assert set(story.list_outcomes().values()) <= {"promoted", "refused"}
    assert "stale" not in story.list_states(0).values()
    workspace.check_sound()


def test_two_triggers_at_once_do_the_work_once(story: Story) -> None:
    workspace = story.workspace
    story.retrain("food")
    story.add("food", 40)
    triggers = [workspace.start("retrain", "food", "--json") for _ in range(2)]
    told = [trigger.communicate(timeout=480) for trigger in triggers]
    assert [trigger.returncode for trigger in triggers] == [0, 0], told
    outcomes = [json.loads(out)["tasks"][0] for out, _ in told]
    worked = [task for task in outcomes if task["outcome"] in ("promoted", "refused")]
    assert len(worked) == 1, outcomes
    (other,) = [task for task in outcomes if task not in worked]
    assert other["outcome"] in ("left", "fresh")
    assert len(workspace.list_runs()) == 2
    assert story.count_versions("food") == 2
    workspace.check_sound()


def test_the_next_trigger_finishes_what_a_killed_one_began(story: Story) -> None:
    workspace = story.workspace
    story.retrain("food")
    story.add("food", 40)
    killed = workspace.start("retrain", "food", "--json")
    workspace.wait_until(lambda: story.count_versions("food") == 2, "the ledger has the version")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    workspace.wait_until(lambda: not workspace.list_processes(), "the run's processes end", 30)
    known = count_mlflow_versions(workspace)
    done = story.retrain("food")
    assert done["food"]["outcome"] in ("finished", "fresh")
    # Where MLflow lacked the version, the next trigger has put it there.
    assert (done["food"]["outcome"] == "finished") or known == 2
    assert count_mlflow_versions(workspace) == 2
    assert story.count_versions("food") == 2
    assert len(workspace.list_runs()) == 2
    assert story.list_outcomes("food") == {"food": "fresh"}
    workspace.check_sound()


def test_a_spent_budget_leaves_the_rest_to_the_next_time(story: Story) -> None:
    cut = story.retrain("food", "service", "--budget", "0.05")
    assert {task["outcome"] for task in cut.values()} == {"left"}
    assert all("the budget was spent" in task["decision"] for task in cut.values())
    assert story.list_outcomes("food", "service") == {"food": "promoted", "service": "promoted"}
    story.workspace.check_sound()


def count_mlflow_versions(workspace: Any) -> int:
    with sqlite3.connect(workspace.home / "mlflow.db") as database:
        count: int = database.execute("select count(*) from model_versions where name = 'food'").fetchone()[0]
    return count
