"""What holds for every command: errors, help, speed, pipes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from lorry_registry.cli import COMMANDS, LazyGroup
from lorry_registry.cli.edge import json_option, print_json, print_json_entries
from lorry_registry.errors import ConflictError

Run = Callable[..., Result]


@pytest.mark.parametrize("command", ["show", "history", "rollback", "verify"])
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


def test_a_registry_in_a_folder_above_is_named_instead_of_an_empty_table(
    lorry: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("LORRY_STORE", "LORRY_HOME"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / ".lorry" / "store").mkdir(parents=True)
    below = tmp_path / "tasks"
    below.mkdir()
    monkeypatch.chdir(below)
    refused = lorry("tasks", code=7).stderr
    assert f"there is no registry here, but one in {tmp_path}/.lorry" in refused
    assert "put a lorry.toml beside it" in refused
    # Beside a lorry.toml the registry serves the folders below as well.
    (tmp_path / "lorry.toml").touch()
    assert f"{tmp_path}/.lorry/store" in lorry("tasks").stdout


# Errors for machines


def test_every_error_has_a_json_form(lorry: Run, two_tasks: dict[str, Any]) -> None:
    result = lorry("show", "revews", "--json", code=7)
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "NotFoundError"
    assert error["exit_code"] == 7
    assert "there is no task 'revews'" in error["what"]
    assert error["todo"] == "did you mean 'reviews'?"
    assert "there is no task 'revews'" in result.stderr


def test_a_wrong_option_has_a_json_form_wherever_json_stands(lorry: Run) -> None:
    for arguments in (("--json", "--version", "x"), ("--version", "x", "--json")):
        error = json.loads(lorry("show", "reviews", *arguments, code=2).stdout)["error"]
        assert error["kind"] == "UsageError"
        assert "is not a version; write 3 or v3" in error["what"]


def test_faults_are_listed_for_machines(lorry: Run) -> None:
    Path("lorry.toml").write_text("stores = 'x'\nhom = 1\n", "utf-8")
    error = json.loads(lorry("tasks", "--json", code=3).stdout)["error"]
    assert (error["kind"], error["total"]) == ("InvalidTaskError", 2)
    assert [fault["where"] for fault in error["faults"]] == ["stores", "hom"]
    assert error["faults"][0]["remedy"] == "did you mean 'store'?"


def test_what_was_printed_before_an_error_stays_the_one_document() -> None:
    @click.command("halve")
    @json_option
    def halve(as_json: bool) -> None:
        print_json({"done": 1})
        raise ConflictError("the other half is taken")

    group = LazyGroup(name="lorry", commands=[halve])
    result = CliRunner().invoke(group, ["halve", "--json"])
    assert result.exit_code == 8
    assert json.loads(result.stdout) == {"done": 1}
    assert "the other half is taken" in result.stderr


# Help, and the real thing


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


@pytest.mark.parametrize("documents", [[], [{"a": [1, {"b": "é"}]}], [1, {"a": None}, []]])
def test_entries_are_printed_as_one_list_each_as_it_comes(
    documents: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    print_json(documents)
    expected = capsys.readouterr().out
    print_json_entries(documents)
    assert capsys.readouterr().out == expected

    def fail_after_one() -> Iterator[Any]:
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        print_json_entries(fail_after_one())
    assert '"a": 1' in capsys.readouterr().out
