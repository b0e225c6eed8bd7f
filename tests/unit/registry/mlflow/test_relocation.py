"""An MLflow in a folder that was moved: noticed, said, and set right by ``reconcile``."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import TrackingError
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.mlflow.relocation import find_former_root, relocate_artifacts

from fixtures.adapters import show_version

Make = Callable[..., Any]
TASK = "reviews"


def list_addresses(database: Path) -> list[str]:
    with sqlite3.connect(database) as connection:
        found = [
            value
            for query in (
                "SELECT artifact_location FROM experiments WHERE name != 'Default'",
                "SELECT artifact_uri FROM runs",
                "SELECT artifact_location FROM logged_models",
                "SELECT source FROM model_versions",
            )
            for (value,) in connection.execute(query)
        ]
    connection.close()
    return found


@pytest.fixture
def home(empty_mlflow: Path, make_adapter: Make, tmp_path: Path) -> Path:
    """A folder with an MLflow in it that holds a version, a study and their files."""
    folder = tmp_path / "before it (moved)"
    folder.mkdir()
    shutil.copyfile(empty_mlflow, folder / "mlflow.db")
    fill(folder, make_adapter())
    return folder


def fill(folder: Path, adapter: Any) -> None:
    index = MlflowIndex(f"sqlite:///{folder / 'mlflow.db'}")
    index.open_run(TASK, name="a study", tags={}, of_studies=True)
    run_id = index.open_run(TASK, name="x", tags={})
    model_id = index.create_model(TASK, run_id=run_id, model_type="text", flavor="lorry")
    document = index.build_model_document(model_id, run_id)
    document.add_flavor("lorry", adapter_id=adapter.adapter_id)
    document.save(str(adapter.path / "MLmodel"))
    source = index.upload_model(model_id, adapter.path)
    show_version(index, adapter, source=source, run_id=run_id, model_id=model_id)


def test_a_move_is_noticed_said_and_followed(home: Path, tmp_path: Path, make_adapter: Make) -> None:
    adapter_id = make_adapter().adapter_id
    target = tmp_path / "after it"
    home.rename(target)
    index = MlflowIndex(f"sqlite:///{target / 'mlflow.db'}")
    with pytest.raises(TrackingError, match="this MLflow was moved") as caught:
        index.check_place()
    assert "lorry reconcile" in str(caught.value)
    # Nothing is written to the old place meanwhile.
    with pytest.raises(TrackingError, match="this MLflow was moved"):
        index.open_run(TASK, name="y", tags={})
    assert not home.exists()
    assert index.find_version(TASK, adapter_id) is None
    (change,) = index.follow_relocation()
    assert str(home) in change
    assert str(target) in change
    assert len(list_addresses(target / "mlflow.db")) == 6
    assert all(
        (target / "mlflow-artifacts").as_uri() in each for each in list_addresses(target / "mlflow.db")
    )
    assert index.follow_relocation() == []
    index.check_place()
    assert MlflowIndex(index.tracking_uri).find_version(TASK, adapter_id) == "1"
    index.open_run(TASK, name="y", tags={})


def test_a_copy_gets_files_of_its_own(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(home, copy)
    assert len(MlflowIndex(f"sqlite:///{copy / 'mlflow.db'}").follow_relocation()) == 1
    assert all(copy.as_uri() in each for each in list_addresses(copy / "mlflow.db"))
    assert all(home.as_uri() in each for each in list_addresses(home / "mlflow.db"))
    MlflowIndex(f"sqlite:///{home / 'mlflow.db'}").check_place()


def test_another_path_to_the_same_folder_is_no_move(home: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(home)
    index = MlflowIndex(f"sqlite:///{link / 'mlflow.db'}")
    index.check_place()
    assert index.follow_relocation() == []


def test_a_database_that_was_moved_alone_keeps_its_files_where_they_are(home: Path, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    path = tmp_path / "alone" / "mlflow.db"
    (home / "mlflow.db").rename(path)
    index = MlflowIndex(f"sqlite:///{path}")
    assert index.follow_relocation() == []
    index.open_run(TASK, name="y", tags={})


def test_what_is_not_ours_is_left_where_it_is(home: Path, tmp_path: Path) -> None:
    database = home / "mlflow.db"
    twin = f"{home}2"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE runs SET artifact_uri = 's3://bucket/x' WHERE name = 'x'")
        # A prefix of the path, but another folder; and an underscore that LIKE would take for any letter.
        connection.execute("UPDATE runs SET artifact_uri = ? WHERE name = 'a study'", (f"file://{twin}/x",))
    connection.close()
    former = find_former_root(database, tmp_path / "elsewhere")
    assert former is None
    shutil.copytree(home, tmp_path / "elsewhere")
    root = tmp_path / "elsewhere" / "mlflow-artifacts"
    former = find_former_root(tmp_path / "elsewhere" / "mlflow.db", root)
    assert former == home / "mlflow-artifacts"
    relocate_artifacts(database, former, root)
    addresses = list_addresses(database)
    assert "s3://bucket/x" in addresses
    assert f"file://{twin}/x" in addresses
    assert (root / TASK).as_uri() in addresses


def test_a_file_that_is_no_database_of_mlflows_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    sqlite3.connect(path).close()
    path.write_bytes(b"no database at all, whatever its name says" * 50)
    with pytest.raises(TrackingError, match="cannot correct the places"):
        find_former_root(path, tmp_path / "mlflow-artifacts")
    assert find_former_root(tmp_path / "none.db", tmp_path) is None
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("address", ["s3://bucket/reviews", "mlflow-artifacts:/reviews", "/srv/other-name"])
def test_artifacts_that_do_not_lie_as_lorry_lays_them_never_move(home: Path, address: str) -> None:
    with sqlite3.connect(home / "mlflow.db") as connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", (address,))
    connection.close()
    MlflowIndex(f"sqlite:///{home / 'mlflow.db'}").check_place()


def test_a_database_that_cannot_be_written_is_told(home: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        with sqlite3.connect(home / "mlflow.db") as connection:
            connection.execute("CREATE TRIGGER no BEFORE UPDATE ON runs BEGIN SELECT RAISE(FAIL, 'no'); END")
        connection.close()
    else:
        (home / "mlflow.db").chmod(0o400)
    before = list_addresses(home / "mlflow.db")
    root = tmp_path / "x" / "mlflow-artifacts"
    with pytest.raises(TrackingError, match="cannot correct the places"):
        relocate_artifacts(home / "mlflow.db", home / "mlflow-artifacts", root)
    # All or nothing.
    assert list_addresses(home / "mlflow.db") == before
