"""What commands show on terminals of 80, 100 and 160 columns: whole words, and the most important first."""

from collections.abc import Callable
from typing import Any

import pytest

from lorry_pipelines.cli import lorry as command_line
from lorry_registry.registry import Registry

from fixtures.terminals import check_lines, open_terminal

Show = Callable[..., str]

_NOTE = "not shown here: (widen the terminal or use --json)"

_REASON = (
    "accuracy 0.356; no minimum set; it answers every test row with 'not_entailment'; not significantly "
    "better than the majority class at 0.356: +0.000, above 0 with confidence 50.0%, 95.0% needed"
)


@pytest.fixture
def show(lorry: Any, two_tasks: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Show:
    """Return a function that runs a command on a terminal, and returns what that shows."""
    registry.promote("reviews", 1, reason=_REASON)

    def run(width: int, *arguments: str) -> str:
        with monkeypatch.context() as patch:
            terminal = open_terminal(patch, width)
            command_line.main(list(arguments), standalone_mode=False)
        return terminal.read_plain()

    return run


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize(
    "arguments", [["tasks"], ["history", "reviews"], ["show", "reviews"], ["gc"], ["verify", "--all"]]
)
def test_lines_fit_and_words_stay_whole(show: Show, width: int, arguments: list[str]) -> None:
    shown = show(width, *arguments)
    check_lines(shown, width)
    words = set(show(1000, *arguments).split())
    broken = {word for word in shown.split() if word not in words and not word.startswith("─")}
    assert (
        not broken - {"not", "shown", "here:", "(widen", "the", "terminal,", "or", "use", "--json)"} - _TITLES
    )


# Those of columns, in the line that says which are not shown.
_TITLES = {
    f"{title},"
    for title in ("Task type", "Base", "Method", "Trained", "Size", "Adapter", "type", "By", "Champion")
}


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (80, ["Task", "Version", "Metric", "Value", "95 % interval", "Method"]),
        (100, ["Task", "Version", "Metric", "Value", "95 % interval", "Method", "Promoted"]),
    ],
)
def test_tasks_keeps_what_tells_most(show: Show, width: int, columns: list[str]) -> None:
    head = show(width, "tasks").splitlines()[0]
    for column in columns:
        assert column in head


def test_a_history_keeps_what_happened_and_puts_the_reason_below(show: Show) -> None:
    lines = show(80, "history", "reviews").splitlines()
    assert lines[0].split() == ["#", "When", "By", "What", "Version", "Champion"]
    (place,) = [number for number, line in enumerate(lines) if "promote" in line]
    assert lines[place].split()[4:6] == ["promote", "v1"]
    assert "v2 -> v1" in lines[place]
    assert lines[place + 1].startswith("    accuracy 0.356; no minimum set;")
    assert " ".join(" ".join(lines[place + 1 :]).split()).startswith(_REASON)


def test_on_a_wide_terminal_the_reason_stands_beside(show: Show) -> None:
    lines = show(160, "history", "reviews").splitlines()
    assert "Why" in lines[0]
    assert any("promote" in line and "accuracy 0.356" in line for line in lines)
