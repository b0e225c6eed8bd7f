"""``lorry drift``: what it finds, what it keeps for ``lorry stale``, and its exit codes."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lorry_pipelines.cli import lorry
from lorry_registry.errors import InvalidDataError, NotFoundError, UsageError
from lorry_registry.records.drift_records import read_drift
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

from fixtures.adapters import enroll, write_adapter

TASK = """
name: reviews
kind: text-classification
base: {{model: {base}}}
data: {{source: ../rows.jsonl, max_length: 16}}
method: {{name: lora, r: 2, targets: [query, value]}}
drift: {{confidence: 0.95, rows: 60}}
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bert: Path, tiny_rows: Path) -> LocalStore:
    """A folder with a task in tasks/, which has a champion, and the store of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/reviews.yaml").write_text(TASK.format(base=tiny_bert), "utf-8")
    (tmp_path / "rows.jsonl").write_bytes(tiny_rows.read_bytes())
    store = LocalStore(tmp_path / "home/store")
    registry = Registry(store, tmp_path / "cache")
    adapter = write_adapter(tmp_path / "adapter", kind="text-classification", labels=("maybe", "no", "yes"))
    enroll(registry, adapter, reasons=("first",))
    return store


def write_inputs(rows: list[dict[str, Any]]) -> str:
    Path("new.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return "new.jsonl"


def read_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("rows.jsonl").read_text("utf-8").splitlines()]


def pick(count: int) -> list[dict[str, Any]]:
    """Return some of the training rows, of all kinds."""
    return random.Random(0).sample(read_rows(), count)  # noqa: S311


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(lorry, ["drift", *arguments])


def test_inputs_like_the_training_rows(store: LocalStore) -> None:
    result = invoke("reviews", "--data", write_inputs(pick(45)))
    assert result.exit_code == 0, result.output
    assert "reviews: no shift is sure" in result.stdout
    assert "have changed since v1" in result.stdout
    record = read_drift(store, "reviews")
    assert record is not None
    assert (record.champion, record.has_drifted, record.shifts) == (1, False, {})


def test_other_inputs_make_the_task_stale(store: LocalStore) -> None:
    rows = [{"text": f"1 2 3 4 5 6 7 8 9 {n}"} for n in range(60)]
    result = invoke("tasks/reviews.yaml", "--data", write_inputs(rows), "--json")
    assert result.exit_code == 20, result.output
    document = json.loads(result.stdout)
    assert document["has_drifted"]
    assert {"vocabulary", "embedding"} <= set(document["shifts"])
    assert document["report"]["left_out"] == {"labels": "not every new input has one"}
    record = read_drift(store, "reviews")
    assert record is not None
    assert record.has_drifted
    assert record.confidence == 0.95


def test_looking_only_leaves_no_record(store: LocalStore) -> None:
    assert invoke("reviews", "--data", write_inputs(read_rows()), "--dry-run").exit_code == 0
    assert read_drift(store, "reviews") is None


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["films", "--data", "rows.jsonl"], UsageError.exit_code),
        (["reviews", "--data", "nothing.jsonl"], InvalidDataError.exit_code),
        (["reviews"], 2),
    ],
)
def test_what_cannot_be_compared_is_refused(store: LocalStore, arguments: list[str], code: int) -> None:
    assert invoke(*arguments).exit_code == code


def test_a_task_without_a_champion_has_nothing_to_drift_from(store: LocalStore) -> None:
    text = Path("tasks/reviews.yaml").read_text("utf-8").replace("name: reviews", "name: films")
    Path("tasks/films.yaml").write_text(text, "utf-8")
    assert invoke("films", "--data", "rows.jsonl").exit_code == NotFoundError.exit_code
