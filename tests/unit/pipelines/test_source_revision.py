"""The git commit that a task's file was read at."""

import subprocess
from pathlib import Path

import pytest

from lorry_pipelines.local.source_revision import find_source, find_sources


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with one committed task file in a folder."""
    folder = tmp_path / "repository"
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks" / "reviews.yaml").write_text("name: reviews\n")
    run_git(folder, "init", "--quiet", ".")
    run_git(folder, "add", ".")
    run_git(folder, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "x")
    return folder


def run_git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_committed_file_has_its_commit(repository: Path) -> None:
    source = find_source(repository / "tasks" / "reviews.yaml")
    assert source is not None
    assert source.commit == run_git(repository, "rev-parse", "HEAD")
    assert (source.is_dirty, source.uri) == (False, "")


def test_changes_make_it_dirty(repository: Path) -> None:
    task = repository / "tasks" / "reviews.yaml"
    other = repository / "tasks" / "films.yaml"
    other.write_text("name: films\n")
    assert getattr(find_source(task), "is_dirty", None) is False
    assert getattr(find_source(other), "is_dirty", None) is True
    task.write_text("name: other\n")
    assert getattr(find_source(task), "is_dirty", None) is True


@pytest.mark.parametrize(
    ("address", "uri"),
    [
        ("https://git.example.org/a.git", "https://git.example.org/a.git"),
        ("https://user:secret-1@git.example.org/a.git", "https://git.example.org/a.git"),
        ("https://secret-1@git.example.org/a.git?token=secret-1", "https://git.example.org/a.git?token=***"),
        ("git@git.example.org:a.git", "git@git.example.org:a.git"),
    ],
)
def test_no_password_is_in_its_address(repository: Path, address: str, uri: str) -> None:
    run_git(repository, "remote", "add", "origin", address)
    source = find_source(repository / "tasks" / "reviews.yaml")
    assert source is not None
    assert source.uri == uri


def test_without_a_repository_a_commit_or_git_there_is_none(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain.yaml").write_text("")
    run_git(tmp_path, "init", "--quiet", "empty")
    (tmp_path / "empty" / "a.yaml").write_text("")
    paths = {"a": tmp_path / "plain.yaml", "b": tmp_path / "empty" / "a.yaml"}
    assert find_sources(paths) == {}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_source(repository / "tasks" / "reviews.yaml") is None


def test_a_repository_runs_nothing_of_its_own(repository: Path, tmp_path: Path) -> None:
    run_git(repository, "config", "core.fsmonitor", f"touch {tmp_path}/ran; false")
    find_source(repository / "tasks" / "reviews.yaml")
    assert not (tmp_path / "ran").exists()
