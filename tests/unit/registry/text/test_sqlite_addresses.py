"""Addresses of SQLite files in folders whose names an address must escape."""

import importlib.util
from pathlib import Path

import pytest

from lorry_registry.errors import TrackingError
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.settings import Settings
from lorry_registry.text.sqlite_addresses import find_database_file, name_database

FOLDERS = ["job%2Fbranch", "a?b=c", "a#b", "100%", "ä b+c"]


@pytest.mark.parametrize("name", FOLDERS)
def test_mlflow_is_in_the_projects_own_folder(tmp_path: Path, name: str, empty_mlflow: Path) -> None:
    project = tmp_path / name
    home = project / ".lorry"
    home.mkdir(parents=True)
    (home / "mlflow.db").write_bytes(empty_mlflow.read_bytes())
    settings = Settings.load({}, project)
    assert find_database_file(settings.tracking_uri) == home / "mlflow.db"
    # A step is given the address.
    passed_on = Settings.load({"MLFLOW_TRACKING_URI": settings.tracking_uri}, tmp_path)
    assert passed_on.tracking_uri == settings.tracking_uri
    index = MlflowIndex(settings.tracking_uri)
    run = index.open_run("reviews", name="training", tags={})
    index.log_text(run, "kept", "note.txt")
    index.check_place()
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert sorted(path.name for path in project.iterdir()) == [".lorry"]
    assert len(list((home / "mlflow-artifacts").rglob("note.txt"))) == 1


def test_usual_paths_stay_as_they_are() -> None:
    assert name_database(Path("/a b/ä+c/m.db")) == "sqlite:////a b/ä+c/m.db"
    assert find_database_file("sqlite:///m.db?timeout=5") == Path("m.db")
    assert find_database_file("sqlite:///:memory:") is None
    assert find_database_file("postgresql://host/m.db") is None


def test_an_older_sqlalchemy_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    # Before 2.1 an address could not escape its path, so none holds a question mark.
    monkeypatch.setattr("lorry_registry.text.sqlite_addresses._escape", lambda path: path)
    with pytest.raises(TrackingError, match="in a folder of this name") as caught:
        name_database(Path("/a?b/mlflow.db"))
    assert "sqlalchemy>=2.1" in caught.value.todo


def test_settings_are_read_without_sqlalchemy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    (tmp_path / "job%2Fbranch").mkdir()
    settings = Settings.load({}, tmp_path / "job%2Fbranch")
    assert find_database_file(settings.tracking_uri) == tmp_path / "job%2Fbranch/.lorry/mlflow.db"
