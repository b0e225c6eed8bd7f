"""The list of commands: few, and the ones of every day first."""

from lorry_pipelines.cli import COMMANDS


def test_there_are_at_most_28_commands_and_the_first_group_has_ten() -> None:
    assert len({command.name for command in COMMANDS}) == len(COMMANDS) <= 28
    first = [command.name for command in COMMANDS if command.section == COMMANDS[0].section]
    assert len(first) == 10
    assert {"init", "run", "predict", "tasks"} < set(first)
