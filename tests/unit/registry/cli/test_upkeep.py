"""``delete``, ``restore`` and ``gc``, as a person and as a program sees them."""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lorry_registry.cli import delete
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

Run = Callable[..., Result]


@pytest.fixture
def grow_old(store: LocalStore) -> Callable[[float], None]:
    """Return a function that lets everything in the store have been written some days ago."""

    def age(days: float) -> None:
        then = time.time() - days * 86400
        for path in store.root.rglob("*"):
            os.utime(path, (then, then))

    return age


@pytest.fixture
def many_versions(register_adapter: Callable[..., Any]) -> list[Any]:
    return [register_adapter(seed=seed)[0] for seed in range(1, 6)]


def _list_columns(output: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in output.splitlines() if line.strip()]


# delete, restore


def test_a_deleted_task_is_left_out_and_comes_back(lorry: Run, two_tasks: dict[str, Any]) -> None:
    result = lorry("delete", "reviews", "--reason", "replaced by ratings", "--yes")
    assert result.stdout == "reviews is deleted. To bring it back: lorry restore reviews\n"
    assert "reviews" not in lorry("tasks").stdout
    assert "reviews was deleted on " in lorry("tasks", "--all").stdout
    assert [entry["task"] for entry in json.loads(lorry("tasks", "--json").stdout)] == ["films"]
    described = json.loads(lorry("tasks", "--all", "--json").stdout)
    assert [("deleted_at" in entry, entry["version"]) for entry in described] == [(False, None), (True, None)]
    for arguments in (
        ("show", "reviews"),
        ("pull", "reviews", "out"),
        ("promote", "reviews", "1"),
        ("rollback", "reviews"),
        ("delete", "reviews", "--reason", "again"),
    ):
        error = lorry(*arguments, code=7).stderr
        assert re.search(r"reviews: the task was deleted on \d{4}-\d\d-\d\d at \d\d:\d\d UTC by ", error)
        assert ": replaced by ratings" in error
        assert "lorry restore reviews brings it back" in error
    assert not Path("out").exists()
    assert lorry("verify", "reviews").stdout.endswith("3 checked, all sound\n")
    assert _list_columns(lorry("history", "reviews").stdout)[-1][-5:-1] == [
        "delete",
        "v2",
        "v2 -> none",
        two_tasks["reviews v2"].adapter_id[7:19],
    ]
    assert lorry("restore", "reviews").stdout == "reviews is back; its champion is v2.\n"
    assert json.loads(lorry("show", "reviews", "--json").stdout)["version"] == 2
    assert "the task is not deleted" in lorry("restore", "reviews", code=8).stderr
    assert "there is no task 'review'" in lorry("restore", "review", code=7).stderr


def test_a_task_without_a_champion_is_deleted_and_restored(lorry: Run, two_tasks: dict[str, Any]) -> None:
    deleted = json.loads(lorry("delete", "films", "--reason", "x", "--yes", "--json").stdout)
    assert deleted.pop("deleted_at").endswith("Z")
    assert deleted == {"task": "films", "version_before": None, "mlflow": "not updated"}
    restored = json.loads(lorry("restore", "films", "--json").stdout)
    assert restored.pop("restored_at").endswith("Z")
    assert restored == {"task": "films", "version": None, "mlflow": "not updated"}


def test_whoever_is_not_at_a_terminal_says_yes_beforehand(
    lorry: Run, registry: Registry, two_tasks: dict[str, Any]
) -> None:
    assert "give --yes if you are sure" in lorry("delete", "reviews", "--reason", "x", code=2).stderr
    assert "Missing option '--reason'" in lorry("delete", "reviews", "--yes", code=2).stderr
    assert registry.resolve("reviews").version == 2


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_at_a_terminal_the_user_is_asked(
    lorry: Run,
    registry: Registry,
    two_tasks: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
) -> None:
    questions: list[str] = []

    def confirm(question: str, *, abort: bool, err: bool) -> None:
        questions.append(question)
        if answer == "n":
            raise delete.click.Abort

    monkeypatch.setattr(delete.click, "confirm", confirm)
    monkeypatch.setattr(delete, "_is_asked", lambda: True)
    lorry("delete", "reviews", "--reason", "x", code=code)
    assert questions == ["reviews has 3 versions, and v2 is its champion. Delete it?"]
    assert (registry.describe_task("reviews").deleted is not None) == (code == 0)


def test_a_damaged_champion_can_be_deleted(
    lorry: Run, two_tasks: dict[str, Any], stored_file: Callable[[str, str], Path]
) -> None:
    path = stored_file(two_tasks["reviews v2"].adapter_id, "manifest.json")
    path.write_bytes(b"{}")
    lorry("delete", "reviews", "--reason", "damaged", "--yes")
    assert "the manifest was changed" in lorry("restore", "reviews", code=6).stderr


# gc


def test_gc_says_what_it_would_free_and_changes_nothing(
    lorry: Run, store: LocalStore, many_versions: list[Any], grow_old: Callable[[float], None]
) -> None:
    assert lorry("gc").stdout.endswith("There is nothing to free.\n")
    grow_old(8)
    before = sorted(path for path in store.root.rglob("*"))
    output = lorry("gc", "--keep-last", "1", "--grace", "0s").stdout
    rows = _list_columns(output)
    assert [row[:4] for row in rows[2:5]] == [
        ["old version", "reviews", f"v{version}", adapter.adapter_id[7:19]]
        for version, adapter in enumerate(many_versions[:3], 1)
    ]
    assert all("older than the last 1 versions" in row[-1] for row in rows[2:5])
    assert re.search(r"kept: 1 adapter, .*: the champion", output)
    assert re.search(r"kept: 1 adapter, .*: a rollback would lead to it", output)
    # The command that it names frees just these.
    told = " ".join(output.split())
    assert (
        "could be freed. Nothing was changed; to free them: lorry gc --keep-last 1 --grace 0m --apply" in told
    )
    assert sorted(path for path in store.root.rglob("*") if ".scratch" not in str(path)) == [
        path for path in before if ".scratch" not in str(path)
    ]


def test_gc_frees_and_the_other_commands_say_so(
    lorry: Run, many_versions: list[Any], grow_old: Callable[[float], None]
) -> None:
    grow_old(8)
    output = lorry("gc", "--keep-last", "1", "--grace", "0s", "--apply").stdout
    assert re.search(r"^3 things, .* freed$", output, re.MULTILINE)
    for arguments in (("show", "reviews", "--version", "2"), ("promote", "reviews", "2")):
        error = lorry(*arguments, code=7).stderr
        assert "reviews v2: its files were collected on " in error
        assert "lorry history reviews" in error
    verified = lorry("verify", "reviews").stdout
    assert [row[-1] for row in _list_columns(verified)[2:7]] == ["collected"] * 3 + ["sound"] * 2
    assert "2 checked, all sound; the files of 3 were collected by lorry gc" in verified
    checks = json.loads(lorry("verify", "reviews", "--json").stdout)
    assert [check.get("collected", False) for check in checks] == [True] * 3 + [False] * 2
    assert all(check["ok"] for check in checks)
    last = _list_columns(lorry("history", "reviews").stdout)[-1]
    assert last[3:6] == ["collect", "v1 to v3", "v5"]
    assert lorry("gc", "--keep-last", "1", "--grace", "0s", "--apply").stdout.endswith("Nothing was freed.\n")


def test_gc_for_machines(lorry: Run, many_versions: list[Any], grow_old: Callable[[float], None]) -> None:
    grow_old(8)
    planned = json.loads(lorry("gc", "--keep-last", "1", "--grace", "0s", "--json").stdout)
    assert not planned["applied"]
    assert len(planned["would_free"]) == 3
    freed = json.loads(lorry("gc", "--keep-last", "1", "--grace", "0s", "--json", "--apply").stdout)
    assert freed["freed"] == planned["would_free"]
    assert freed["bytes"] == planned["bytes"] == sum(entry["bytes"] for entry in freed["freed"]) > 0
    assert {entry["reason"] for entry in freed["kept"]} == {"the champion", "a rollback would lead to it"}
    assert freed["problems"] == {}


def test_gc_reports_a_damaged_ledger_and_exits_with_its_code(
    lorry: Run, store: LocalStore, two_tasks: dict[str, Any]
) -> None:
    (store.root / "tasks" / "films" / "head.json").write_text("no JSON")
    result = lorry("gc", code=9)
    assert "error: the ledger of films: " in result.stderr
    assert "kept: 1 adapter" in result.stdout


@pytest.mark.parametrize("text", ["7", "a week", "-1d", "1.5d", ""])
def test_a_duration_that_is_none_is_refused(lorry: Run, text: str) -> None:
    assert "is not a duration; write 7d, 12h, 30m or 0s" in lorry("gc", "--grace", text, code=2).stderr


def test_when_all_tasks_were_deleted_that_is_said(lorry: Run, two_tasks: dict[str, Any]) -> None:
    for task in ("reviews", "films"):
        lorry("delete", task, "--reason", "x", "--yes")
    assert lorry("tasks").stdout == "All tasks were deleted; to see them: lorry tasks --all\n"
    assert json.loads(lorry("tasks", "--json").stdout) == []


def test_gc_of_a_store_that_is_not_there_makes_none(lorry: Run, store: LocalStore) -> None:
    assert lorry("gc").stdout == "There is nothing to free.\n"
    assert lorry("gc", "--apply").stdout == "Nothing was freed.\n"
    assert not store.root.exists()
