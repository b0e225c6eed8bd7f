"""``lorry bases``: what it prints, and what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import click.testing
import pytest

from lorry_pipelines.cli import lorry
from lorry_pipelines.local.containers import Mount
from lorry_pipelines.local.launch import list_mounts
from lorry_registry.settings import Settings
from lorry_registry.tasks.task_loading import place_base
from lorry_registry.tasks.task_spec import TaskSpec

Run = Callable[..., click.testing.Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Return a function that runs a command in a folder of its own, where bases are in ``bases``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LORRY_BASES", "bases")

    def run_it(*arguments: str | Path) -> click.testing.Result:
        return click.testing.CliRunner().invoke(lorry, ["bases", *map(str, arguments)])

    return run_it


def test_push_prints_the_line_for_the_task_file(run: Run, tiny_bert: Path, tmp_path: Path) -> None:
    pushed = run("push", tiny_bert, "--name", "minilm")
    assert pushed.exit_code == 0, pushed.output
    assert f"minilm is in {tmp_path / 'bases'}" in pushed.output
    assert "base: {model: bases:minilm}" in pushed.output
    again = json.loads(run("push", tiny_bert, "--name", "minilm", "--json").output)
    assert (again["state"], again["architecture"], again["place"]) == (
        "present",
        "BertModel",
        str(tmp_path / "bases"),
    )
    assert again["fingerprint"] in pushed.output
    (listed,) = json.loads(run("list", "--json").output)
    assert listed == {
        "name": "minilm",
        "model": "bases:minilm",
        "architecture": "BertModel",
        "size_bytes": again["size_bytes"],
        "fingerprint": again["fingerprint"],
        "problem": None,
    }


def test_the_folders_name_is_the_bases(run: Run, tiny_bert: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bert, tmp_path / "encoder")
    assert run("push", "encoder").exit_code == 0
    (tmp_path / "bases" / "broken").mkdir()
    output = run("list").output
    assert "encoder" in output
    assert "not usable" in output


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a b"])
def test_a_name_that_leads_elsewhere_is_refused(run: Run, tiny_bert: Path, tmp_path: Path, name: str) -> None:
    assert run("push", tiny_bert, "--name", name).exit_code == 2
    assert not (tmp_path / "bases").exists()


def test_what_cannot_be_pushed_is_refused(
    run: Run, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("push", "nowhere").exit_code == 2
    assert run("push", "package:../x").exit_code == 2
    (tmp_path / "empty").mkdir()
    assert run("push", "empty").exit_code == 5
    monkeypatch.setenv("LORRY_BASES", "")
    assert run("push", tiny_bert).exit_code == 2
    assert run("list").exit_code == 2


@pytest.mark.parametrize(
    "address", ["s3://bucket", "s3://bucket/", "http://host/x", "s3://key:secret@bucket/x"]
)
def test_a_place_that_is_none_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("LORRY_BASES", address)
    refused = run("list")
    assert refused.exit_code == 3
    assert "secret" not in str(refused.exception)


def test_containers_see_the_place_of_bases(tmp_path: Path, tiny_bert: Path) -> None:
    shutil.copytree(tiny_bert, tmp_path / "bases" / "minilm")
    settings = Settings.load({"LORRY_BASES": "bases"}, tmp_path)
    document = {"name": "a", "kind": "text-classification", "data": {"source": "s3://b/k.csv"}}
    base = {"base": {"model": "bases:minilm"}, "method": {"name": "lora"}}
    spec = place_base(TaskSpec.model_validate(document | base), settings.base_place)
    bases = tmp_path / "bases"
    assert Mount(source=bases, target=bases, is_read_only=True) in list_mounts([spec], settings)
    assert settings.list_step_variables()["LORRY_BASES"] == str(bases)
