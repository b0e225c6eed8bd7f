"""``pull``, ``verify``, ``promote`` and ``rollback``, as a person and as a program sees them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lorry_registry.manifest import WEIGHTS_NAME
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.registry import Registry

from fixtures.adapters import show_version

Run = Callable[..., Result]


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _list_columns(output: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in output.splitlines() if line.strip()]


# pull, verify


def test_pull_copies_the_adapter(lorry: Run, two_tasks: dict[str, Any]) -> None:
    adapter = two_tasks["reviews v2"]
    output = lorry("pull", "reviews", "out").stdout
    assert output == f"reviews v2 ({adapter.adapter_id[7:19]}, 586 B) is in out, verified\n"
    assert (Path("out") / WEIGHTS_NAME).read_bytes() == (adapter.path / WEIGHTS_NAME).read_bytes()
    pulled = json.loads(lorry("pull", "reviews", "deep/one", "--version", "1", "--json").stdout)
    assert pulled == {
        "task": "reviews",
        "version": 1,
        "adapter_id": two_tasks["reviews v1"].adapter_id,
        "path": str(Path("deep/one").absolute()),
        "files": ["adapter_config.json", "adapter_model.safetensors", "README.md"],
        "size_bytes": two_tasks["reviews v1"].manifest.size_bytes,
    }
    assert "verified" in lorry("pull", "reviews", "out").stdout


def test_pull_overwrites_nothing(lorry: Run, two_tasks: dict[str, Any]) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").touch()
    Path("file").touch()
    for target in ("mine", "file"):
        assert f"{target}: the folder " in lorry("pull", "reviews", target, code=8).stderr
    Path("mine/notes.txt").unlink()
    lorry("pull", "reviews", "mine")
    assert "name a folder in it: lorry pull reviews ./reviews" in lorry("pull", "reviews", ".", code=2).stderr


def test_verify_tells_what_is_sound_and_what_is_not(
    lorry: Run, two_tasks: dict[str, Any], stored_file: Callable[[str, str], Path]
) -> None:
    assert lorry("verify", "--all").stdout.endswith("4 checked, all sound\n")
    assert lorry("verify", "films").stdout.endswith("1 checked, all sound\n")
    _flip(stored_file(two_tasks["reviews v1"].adapter_id, WEIGHTS_NAME))
    result = lorry("verify", "--all", code=6)
    assert [row[::3] for row in _list_columns(result.stdout)[2:]] == [
        ["films", "sound"],
        ["reviews", "damaged"],
        ["reviews", "sound"],
        ["reviews", "sound"],
    ]
    assert "error: reviews v1: " in result.stderr
    assert "adapter_model.safetensors was changed" in result.stderr
    checks = json.loads(lorry("verify", "reviews", "--json", code=6).stdout)
    assert [check["ok"] for check in checks] == [False, True, True]
    assert "was changed" in checks[0]["problem"]
    assert checks[1] == {
        "task": "reviews",
        "version": 2,
        "adapter_id": two_tasks["reviews v2"].adapter_id,
        "ok": True,
        "problem": None,
    }


def test_verify_without_anything_to_do(lorry: Run) -> None:
    assert lorry("verify", "--all").stdout == "There is nothing to verify: no task has an adapter yet.\n"
    assert json.loads(lorry("verify", "--all", "--json").stdout) == []
    for arguments in ((), ("reviews", "--all")):
        assert "name one task, or give --all" in lorry("verify", *arguments, code=2).stderr


# promote, rollback


def test_a_move_stands_although_there_is_no_mlflow(
    lorry: Run, registry: Registry, two_tasks: dict[str, Any]
) -> None:
    result = lorry("promote", "reviews", "v3", "--reason", "it is smaller")
    digest = two_tasks["reviews v3"].adapter_id[7:19]
    assert result.stdout == f"The champion of reviews is now v3 ({digest}); it was v2.\n"
    assert "warning: the ledger has moved, but MLflow has not" in result.stderr
    assert "run: lorry reconcile" in result.stderr
    assert registry.resolve("reviews").version == 3
    assert registry.ledger.read_history("reviews")[-1].reasons == ("it is smaller",)
    assert not Path(".lorry/mlflow.db").exists()
    moved = json.loads(lorry("rollback", "reviews", "--json").stdout)
    assert moved.pop("promoted_at").endswith("Z")
    assert moved == {
        "task": "reviews",
        "version": 2,
        "adapter_id": two_tasks["reviews v2"].adapter_id,
        "version_before": 3,
        "mlflow": "not updated",
    }


def test_a_move_stands_although_mlflow_is_broken(
    lorry: Run, registry: Registry, two_tasks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("broken.db").write_text("not a database " * 100, "utf-8")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///broken.db")
    assert "file is not a database" in lorry("promote", "reviews", "1").stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert "run: lorry reconcile" in lorry("promote", "reviews", "3").stderr
    assert registry.resolve("reviews").version == 3


def test_mlflows_aliases_follow_a_move(
    lorry: Run, two_tasks: dict[str, Any], mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = MlflowIndex(mlflow_uri)
    for number in (1, 2, 3):
        show_version(index, two_tasks[f"reviews v{number}"], number)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    result = lorry("rollback", "reviews", "--reason", "complaints", "--json")
    assert result.stderr == ""
    assert json.loads(result.stdout)["mlflow"] == "updated"
    ids = {number: two_tasks[f"reviews v{number}"].adapter_id for number in (1, 3)}
    assert index.read_aliases("reviews") == {"champion": ids[1], "challenger": ids[3]}
    assert lorry("promote", "reviews", "3").stderr == ""
    assert index.read_aliases("reviews") == {"champion": ids[3]}


def test_a_champion_that_is_withdrawn_has_no_alias_and_no_reader(
    lorry: Run, two_tasks: dict[str, Any], mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, adapter = MlflowIndex(mlflow_uri), two_tasks["reviews v2"]
    show_version(index, adapter, 2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    lorry("promote", "reviews", "1")
    lorry("promote", "reviews", "2")
    assert index.read_aliases("reviews")["champion"] == adapter.adapter_id
    result = lorry("rollback", "reviews", "--to", "none", "--reason", "it is rude")
    assert result.stdout == "reviews has no champion now; it was v2.\n"
    assert "champion" not in index.read_aliases("reviews")
    assert "v2 was withdrawn" in lorry("show", "reviews", code=7).stderr
    assert "it is rude" in lorry("pull", "reviews", "out", code=7).stderr
    assert "reviews has 3 versions and no champion; see why" in lorry("tasks").stdout
    assert "v2 -> none" in lorry("history", "reviews").stdout
    assert "--to none" not in lorry("rollback", "reviews", code=7).stderr
    assert lorry("promote", "reviews", "2").stdout.endswith("; there was none before.\n")
    assert "lorry rollback reviews --to none" in lorry("rollback", "reviews", code=7).stderr
    moved = json.loads(lorry("rollback", "reviews", "--to", "none", "--json").stdout)
    assert (moved["version"], moved["adapter_id"], moved["version_before"]) == (None, None, 2)


def test_an_mlflow_whose_folder_was_moved_keeps_its_aliases(
    lorry: Run,
    two_tasks: dict[str, Any],
    empty_mlflow: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    shutil.copyfile(empty_mlflow, before / "mlflow.db")
    index, adapter = MlflowIndex(f"sqlite:///{before / 'mlflow.db'}"), two_tasks["reviews v2"]
    index.ensure_experiment("reviews")
    shutil.copytree(adapter.path, before / "mlflow-artifacts" / "reviews" / "files")
    show_version(index, adapter, 2, source=(before / "mlflow-artifacts" / "reviews" / "files").as_uri())
    index.set_aliases("reviews", adapter.adapter_id, None)
    before.rename(after)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{after / 'mlflow.db'}")
    # Its files are not where it believes them to be: no reason to forget which version is the champion.
    told = lorry("promote", "reviews", "v1", "--reason", "it is smaller").stderr
    assert "this MLflow was moved" in told
    assert "run: lorry reconcile" in told
    assert MlflowIndex(f"sqlite:///{after / 'mlflow.db'}").read_alias_versions("reviews") == {"champion": "1"}


def test_moves_that_lead_nowhere_are_told(lorry: Run, two_tasks: dict[str, Any]) -> None:
    assert "is already the champion" in lorry("promote", "reviews", "2", code=8).stderr
    assert "versions 1 to 3 exist" in lorry("promote", "reviews", "7", code=7).stderr
    assert "no earlier champion" in lorry("rollback", "films", code=7).stderr
