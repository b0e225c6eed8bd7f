"""``lorry predict``: how its texts are read, before an adapter is looked for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click.testing
import pytest

from lorry_pipelines.cli import lorry, predict
from lorry_registry.errors import InvalidDataError, UsageError


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that lets ``lorry predict`` read a file, and returns the rows that it found."""
    seen: list[list[dict[str, str]]] = []

    def stop(rows: list[dict[str, str]], **_: Any) -> None:
        seen.append(list(rows))
        raise KeyboardInterrupt

    class Registry:
        def __getattr__(self, _: str) -> Any:
            return self

        def __getitem__(self, _: object) -> Any:
            return {}

        def __call__(self, *_: object) -> Any:
            return self

    monkeypatch.setattr(predict, "open_registry", Registry())
    monkeypatch.setattr(predict, "_check_rows", stop)

    def run(content: bytes, *given: str, from_stdin: bool = False) -> list[dict[str, str]]:
        path = tmp_path / "texts.txt"
        path.write_bytes(content)
        arguments = ["predict", "reviews", *(given if from_stdin else ("--file", str(path)))]
        result = click.testing.CliRunner().invoke(lorry, arguments, input=content)
        if not seen:
            assert result.exit_code == InvalidDataError.exit_code, result.output
            pytest.fail(result.output)
        return seen.pop()

    return run


@pytest.mark.parametrize("given", [None, ["--file", "-"], ["-"], []])
def test_a_line_ends_where_a_line_ends(read: Any, given: list[str] | None) -> None:
    content = '\ufeffone\u2028text\r\n\n{"text": "two\x85", "text_pair": "three"}\r\nfour\x0cfive'.encode()
    assert read(content, *(given or ()), from_stdin=given is not None) == [
        {"text": "one\u2028text"},
        {"text": "two\x85", "text_pair": "three"},
        {"text": "four\x0cfive"},
    ]


def test_all_wrong_lines_are_told_at_once(read: Any) -> None:
    deep = '{"text": ' + "[" * 200_000
    number = '{"text": ' + "9" * 5000 + "}"
    twice = '{"text": "a", "text": "b"}'
    content = f'good\n{{"text": \n{number}\n{deep}\n{{"label": "a"}}\n{twice}\nc\0d\n'.encode()
    with pytest.raises(pytest.fail.Exception) as caught:
        read(content)
    told = str(caught.value)
    assert "texts.txt: 6 faults" in told
    for place in (
        *("line 2: not JSON", "line 3: not JSON", "line 4: it is nested", "line 5: has no 'text'"),
        *("line 6: has the key 'text' 2 times", "line 7: holds a NUL character"),
    ):
        assert place in told


def test_what_is_not_utf_8_is_told(read: Any) -> None:
    with pytest.raises(pytest.fail.Exception, match="cannot be read as UTF-8"):
        read(b"\xff\xfe", "-", from_stdin=True)


def test_pairs_do_not_belong_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\n")
    arguments = ["predict", "reviews", "--file", str(tmp_path / "texts.txt"), "--pair", "two"]
    result = click.testing.CliRunner().invoke(lorry, arguments)
    assert result.exit_code == UsageError.exit_code
    assert "second texts can only be given with texts on the command line" in result.output


def test_a_terminal_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # As click's runner replaces sys.stdin, the module's own is what a test can change.
    monkeypatch.setattr(predict, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    result = click.testing.CliRunner().invoke(lorry, ["predict", "reviews"])
    assert result.exit_code == UsageError.exit_code
    assert "give texts, or a file of texts" in result.output
