"""Tasks that cannot succeed, run beside one that can: each says why, and none takes another down."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CASES = {
    "missing": ("prepare_data", 4, ["nosuch.jsonl: 1 fault", "there is no such file"]),
    "empty": ("prepare_data", 4, ["empty.jsonl: is empty (0 bytes)"]),
    "long-line": ("prepare_data", 4, ["long-line.jsonl line 1: is 9.5 MiB long"]),
    "latin": ("prepare_data", 4, ["latin.jsonl: is not UTF-8 in line 4, byte 0xe9"]),
    "nan": ("prepare_data", 4, ["2 faults", "nan.jsonl line 8", "nan.jsonl line 9", "not finite"]),
    "new-label": ("prepare_data", 4, ["test: has 1 row of 1 class that train lacks ('odd')"]),
    "no-weights": ("prepare_data", 5, ["there are no weights (*.safetensors)"]),
    "too-large": ("finetune", 10, ["MiB, above the limit of 0.001 MiB"]),
}


@pytest.fixture(scope="module")
def failed(make_workspace: Callable[[str], Any], rows: Callable[..., Any]) -> Any:
    workspace = make_workspace("failed")
    good = rows()
    workspace.write_rows("rows.jsonl", good)
    source = {"source": "rows.jsonl", "max_length": 16}
    lines = (workspace.folder / "rows.jsonl").read_bytes().splitlines(keepends=True)

    workspace.write_task("missing", data=source | {"source": "nosuch.jsonl"})
    (workspace.folder / "empty.jsonl").touch()
    workspace.write_rows("long-line.jsonl", [{"text": "x" * 10_000_000, "label": "good"}])
    broken = [*lines[:3], lines[3].replace(b"the ", b"th\xe9 "), *lines[4:]]
    (workspace.folder / "latin.jsonl").write_bytes(b"".join(broken))
    rated = [
        {"text": row["text"], "label": float("nan") if number in (7, 8) else row["rating"]}
        for number, row in enumerate(good)
    ]
    workspace.write_rows("nan.jsonl", rated)
    for name in ("empty", "long-line", "latin"):
        workspace.write_task(name)
    workspace.write_task("nan", kind="regression")
    parts = {
        "train": good[:100],
        "validation": good[100:130],
        "test": [*good[130:], good[0] | {"label": "odd"}],
    }
    parts["test"][-1]["text"] = "the film was odd"
    for part, content in parts.items():
        workspace.write_rows(f"parts/{part}.jsonl", content)
    workspace.write_task("new-label", data=source | {"source": "parts"})
    shutil.copytree(workspace.base, workspace.folder / "empty-base")
    (workspace.folder / "empty-base" / "model.safetensors").unlink()
    workspace.write_task("no-weights", data=source, base={"model": "./empty-base"})
    workspace.write_task("too-large", data=source, method={"name": "lora", "r": 2, "max_adapter_mib": 0.001})
    workspace.write_task("sound", data=source)
    workspace.files = [f"{name}.yaml" for name in CASES] + ["sound.yaml"]
    workspace.first = workspace.run("run", *workspace.files, code=12)
    workspace.report = json.loads(next(workspace.store.glob("runs/*/report.json")).read_text("utf-8"))
    return workspace


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_told(failed: Any, name: str) -> None:
    step, code, parts = CASES[name]
    (told,) = [task for task in failed.report["tasks"] if task["task"] == name]
    assert (told["status"], told["step"], told["failure"]["exit_code"]) == ("failed", step, code)
    assert told["failure"]["trace"] == ""
    message = told["failure"]["message"]
    assert f"{name} failed in {step}: {message}" in failed.first.err
    for part in parts:
        assert part in message
    assert "\n  -> " in message
    assert len(message) < 1000
    (row,) = [line for line in failed.first.out.splitlines() if line.startswith(name)]
    assert row.endswith(f"failed in {step}")


def test_the_sound_task_is_registered(failed: Any) -> None:
    (row,) = [line for line in failed.first.out.splitlines() if line.startswith("sound ")]
    assert row.endswith("promoted")
    assert [task["task"] for task in failed.run_json("tasks")] == ["sound"]
    assert len(failed.list_adapters()) == 1
    failed.check_sound()


def test_mlflow_shows_the_failure(failed: Any) -> None:
    with sqlite3.connect(failed.home / "mlflow.db") as database:
        shown = database.execute(
            "select experiments.name, status from experiments join runs using (experiment_id)"
        )
        assert sorted(shown) == [("sound", "FINISHED"), ("too-large", "FAILED")]


def test_faults_are_told_in_the_order_of_the_files(failed: Any) -> None:
    places = [failed.first.err.index(f"{name} failed in ") for name in CASES]
    assert places == sorted(places)
    assert failed.first.err.count("error: ") == 1
    assert f"{failed.list_runs()[0]}/pipeline.log" in failed.first.err.splitlines()[-1]


def test_no_such_task(failed: Any, tmp_path: Path) -> None:
    commands = [
        *(["predict", "sounds", "a"], ["show", "sounds"], ["history", "sounds"]),
        *(["pull", "sounds", str(tmp_path / "copy")], ["verify", "sounds"], ["promote", "sounds", "1"]),
        *(["rollback", "sounds"], ["reconcile", "sounds"]),
    ]
    for command in commands:
        err = failed.run(*command, code=7).err
        assert "there is no task 'sounds'\n  -> did you mean 'sound'?" in err, command
    assert "there is no version 7" in failed.run("show", "sound", "--version", "7", code=7).err
    assert not (tmp_path / "copy").exists()


def test_a_method_that_does_not_fit_the_base_is_refused_before_anything_runs(failed: Any) -> None:
    data = {"source": "rows.jsonl", "max_length": 16}
    failed.write_task("no-module", data=data, method={"name": "lora", "targets": ["querry"]})
    failed.write_task("high-rank", data=data, method={"name": "lora", "r": 999, "targets": ["query"]})
    runs = failed.list_runs()
    err = failed.run("run", "no-module.yaml", "high-rank.yaml", "sound.yaml", "--force", code=3).err
    assert "no linear layer of BertModel is called 'querry'; did you mean 'query'?" in err
    assert "rank 999 is above the rank that 'query' can have" in err
    assert failed.list_runs() == runs


def test_corrected_and_run_again(failed: Any) -> None:
    """Only what failed is run; with --json what went wrong is data."""
    failed.write_task(
        "too-large", data={"source": "rows.jsonl", "max_length": 16}, method={"name": "lora", "r": 2}
    )
    files = ["sound.yaml", "too-large.yaml", "empty.yaml"]
    tasks = {task["task"]: task for task in failed.run_json("run", *files, code=12)}
    assert {name: task["outcome"] for name, task in tasks.items()} == {
        "sound": "current",
        "too-large": "promoted",
        "empty": "failed",
    }
    assert tasks["empty"]["step"] == "prepare_data"
    assert "is empty (0 bytes)" in tasks["empty"]["reason"]
    assert failed.read_outcome("sound", "prepare_data") is None
    assert len(failed.list_adapters()) == 2
    failed.check_sound()
