"""``lorry serve``: where it may listen, and the tokens that it makes."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lorry_pipelines.cli import lorry
from lorry_registry.errors import UsageError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def serve(*arguments: str) -> Result:
    return CliRunner().invoke(lorry, ["serve", *arguments])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "give --tokens FILE"),  # noqa: S104
        (["--host", "::"], "give --tokens FILE"),
        (["--host", "example.org"], "give --tokens FILE"),
        (["--tokens", "tokens.txt", "--no-auth"], "exclude each other"),
        (["--tokens", "tokens.txt", "--host", "0.0.0.0"], "cannot be read"),  # noqa: S104
        (["token", "--tokens", "tokens.txt"], "name the tasks"),
        (["token", "--tokens", "tokens.txt", "--all", "reviews"], "name the tasks"),
        # Past both questions: the registry is empty.
        (["--no-auth", "--host", "0.0.0.0"], "no task has a champion"),  # noqa: S104
        (["--host", "::1"], "no task has a champion"),
        (["--", "token"], "there is no task 'token'"),
    ],
)
def test_what_is_refused_before_anything_is_served(arguments: list[str], said: str) -> None:
    refused = serve(*arguments)
    assert refused.exit_code != 0
    assert said in " ".join(refused.stderr.split()), refused.stderr


def test_a_token_is_printed_once_and_its_line_names_its_tasks(folder: Path) -> None:
    made = serve("token", "--tokens", "tokens.txt", "reviews", "films")
    assert made.exit_code == 0, made.stderr
    (token,) = made.stdout.split()
    assert len(token) >= 43
    digest, *tasks = (folder / "tokens.txt").read_text().split()
    assert tasks == ["films", "reviews"]
    assert token not in digest
    again = serve("token", "--tokens", "missing/tokens.txt", "--all")
    assert again.exit_code == UsageError.exit_code
    assert "cannot be written" in again.stderr
