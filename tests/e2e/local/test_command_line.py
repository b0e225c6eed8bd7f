"""How quick the command is, and what its help shows."""

import resource
from typing import Any

import pytest

from lorry_pipelines.cli import COMMANDS

ENOUGH_SECONDS = 0.5


@pytest.mark.parametrize("arguments", [["--help"], ["tasks"], ["validate", "--help"]], ids=" ".join)
def test_quick(workspace: Any, arguments: list[str]) -> None:
    def measure() -> float:
        started = spend()
        workspace.run(*arguments)
        return spend() - started

    def spend() -> float:
        # Processor time: on a machine with nothing else to do it passes as fast, and on a busy one it is not
        # the command that waits.
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    measured = [measure()]
    while min(measured) >= ENOUGH_SECONDS and len(measured) < 10:
        measured.append(measure())
    assert min(measured) < ENOUGH_SECONDS, measured


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_help_has_examples(workspace: Any, name: str) -> None:
    out = workspace.run(name, "--help").out
    assert out.startswith(f"Usage: lorry {name} ")
    examples = out.partition("Examples:")[2]
    assert f"lorry {name}" in examples
    assert max(map(len, out.splitlines())) <= 100


def test_help_and_version(workspace: Any) -> None:
    out = workspace.run("--help").out
    assert all(f"  {command.name} " in out for command in COMMANDS)
    assert workspace.run("--version").out.startswith("lorry, version ")
    assert workspace.run(code=2).err == out


def test_no_task_yet(workspace: Any) -> None:
    assert "lorry run TASK.yaml" in workspace.run("tasks").out
    assert workspace.run_json("tasks") == []
    assert not workspace.home.exists()
