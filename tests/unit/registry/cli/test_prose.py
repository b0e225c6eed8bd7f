import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lorry_registry.cli.edge import print_json, print_warning
from lorry_registry.cli.lazy import ReportedError
from lorry_registry.cli.prose import clean_text, print_line, print_prose, wrap_prose
from lorry_registry.cli.tables import print_fields
from lorry_registry.errors import LorryError

from fixtures.terminals import open_terminal

_WORDS = st.lists(st.text("abcxyz/-.:", min_size=1, max_size=30), min_size=1, max_size=40)


@given(_WORDS, st.integers(20, 120), st.integers(0, 6))
@example([":" * 20], 20, 1)
def test_no_word_is_broken_and_none_is_lost(words: list[str], width: int, indent: int) -> None:
    text = " " * indent + " ".join(words)
    wrapped = wrap_prose(text, width)
    assert wrapped.split() == words
    for line in wrapped.splitlines():
        assert len(line) <= width or len(line.split()) == 1
        assert line.startswith(" " * indent)


def test_a_command_stays_on_one_line() -> None:
    text = "reviews has no champion; to use v1 all the same: lorry promote reviews v1 --reason ..."
    assert wrap_prose(text, 60).splitlines() == [
        "reviews has no champion; to use v1 all the same:",
        "  lorry promote reviews v1 --reason ...",
    ]
    narrow = wrap_prose(text, 30).split()
    assert narrow == text.split()


def test_lines_keep_their_own_space_and_empty_ones_stay() -> None:
    text = "error: data: 2 faults\n  line 1: is not a text at all\n\n  -> correct it"
    assert wrap_prose(text, 22).splitlines() == [
        "error: data: 2 faults",
        "  line 1: is not a",
        "    text at all",
        "",
        "  -> correct it",
    ]


def test_a_pipe_gets_long_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_prose("word " * 100)
    assert capsys.readouterr().out.count("\n") == 1


def test_a_terminal_gets_lines_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch, 40)
    print_prose("word " * 100)
    print_prose("another " * 100, err=True)
    lines = terminal.read_plain().splitlines()
    assert max(map(len, lines)) <= 40
    assert set(re.findall(r"\w+", terminal.read_plain())) == {"word", "another"}


@pytest.mark.parametrize(
    "letter", ["\x1b", "\x07", "\r", "\x9b", "\x7f", "\u202e", "\u2066", "\u2028", "\ud800"]
)
def test_what_steers_a_terminal_is_taken_out_of_all_text(
    capsys: pytest.CaptureFixture[str], letter: str
) -> None:
    text = f"a{letter}b"
    assert clean_text(text) == "a\ufffdb"
    print_line(text)
    print_prose(text)
    print_warning(text)
    ReportedError(LorryError(text, where=text)).show()
    print_fields({"Owner": text})
    captured = capsys.readouterr()
    assert letter not in captured.out + captured.err
    assert (captured.out + captured.err).count("\ufffd") == 6


def test_text_of_any_language_stays() -> None:
    text = "na\u00efve \u00ab\u00a0a\u202fb\u00a0\u00bb \u0645\u06cc\u200c\u062e \U0001f469\u200d\U0001f52c\n"
    assert clean_text(text) == text


def test_json_escapes_what_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"reason": "caf\u00e9 \x9b31m\u202e"}
    print_json(document)
    printed = capsys.readouterr().out
    assert json.loads(printed) == document
    assert clean_text(printed) == printed


def test_a_long_value_of_a_field_continues_where_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch, 40)
    print_fields({"Owner": "the team that reads all of the reviews each day", "Address": "s3://" + "x" * 60})
    assert terminal.read_plain().splitlines() == [
        "Owner    the team that reads all of the",
        "         reviews each day",
        "Address  s3://" + "x" * 60,
    ]
