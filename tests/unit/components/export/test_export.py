"""Exported folders of frozen adapters: plain transformers and the hub's tools read them, and say the same."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from lorry_components.export import hub_export
from lorry_components.export.hub_export import push_folder, write_hub_folder
from lorry_components.export.merging import MergedModel, merge_adapter
from lorry_components.methods import METHODS
from lorry_components.methods.native.own_weights import OwnWeightsMethod
from lorry_registry.adapters.verification import read_manifest
from lorry_registry.errors import AdapterRejectedError, ConflictError, UsageError
from lorry_registry.manifest import Manifest
from lorry_registry.tasks.base_places import BasePlace

FROZEN = max((Path(__file__).parents[3] / "frozen").glob("*/store")).parent
FOLDERS = {
    read_manifest(path.parent).task: path.parent for path in FROZEN.glob("store/adapters/*/manifest.json")
}
_MERGEABLE = ("lora", "adalora", "vera", "ia3", "peft", "full", "bitfit", "ft-top", "t5-lora", "gpt2-lora")
MERGED = sorted(
    task
    for task in FOLDERS
    if task.partition("-")[2].startswith((*_MERGEABLE, "bert-lora")) and task != "photographs-lora"
)
REFUSED = {
    "reviews-qlora": "held in four bits",
    "reviews-prompt-tuning": "soft tokens are inputs",
    "reviews-p-tuning-v2": "adds tokens or layers",
    "reviews-adapter-h": "adds tokens or layers",
    "reviews-prelayer": "soft tokens are inputs",
    "photographs-lora": "pipeline of diffusers",
}


@pytest.fixture(autouse=True)
def frozen_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FROZEN))


@pytest.fixture
def merge(tmp_path: Path) -> Callable[[str], MergedModel]:
    def run(task: str) -> MergedModel:
        folder = FOLDERS[task]
        return merge_adapter(
            folder,
            tmp_path / "merged",
            expected_id=read_manifest(folder).adapter_id,
            place=BasePlace(),
        )

    return run


def read_code(folder: Path) -> str:
    """Return the Python of a card; empty: it has none."""
    _, _, rest = (folder / "README.md").read_text("utf-8").partition("```python\n")
    return rest.partition("```")[0]


def run_card(code: str, manifest: Manifest, **variables: Any) -> np.ndarray[Any, Any]:
    """Return the logits that a card's lines compute for the recorded inputs."""
    rows = manifest.probe.rows
    names: dict[str, Any] = {"texts": [row["text"] for row in rows], **variables}
    if "text_pair" in rows[0]:
        names["pairs"] = [row["text_pair"] for row in rows]
    exec(code, names)  # noqa: S102 -- it is the card of an adapter of these tests
    logits: np.ndarray[Any, Any] = names["logits"].numpy()
    return logits


@pytest.mark.parametrize("task", MERGED)
def test_a_merged_model_says_what_the_adapter_said(
    merge: Callable[[str], MergedModel], task: str, tmp_path: Path
) -> None:
    manifest = read_manifest(FOLDERS[task])
    merged = merge(task)
    assert merged.difference < 1e-4 <= merged.tolerance
    assert merged.folder == tmp_path / "merged"
    endings = {path.suffix for path in merged.folder.iterdir()}
    assert endings <= {".json", ".safetensors", ".md", ".txt", ".jinja"}
    code = read_code(merged.folder)
    assert bool(code) == (manifest.kind in ("text-classification", "regression"))
    if code:
        logits = run_card(code, manifest, folder=str(merged.folder))
        np.testing.assert_allclose(logits, manifest.probe.outputs, atol=1e-4)
    assert list(tmp_path.iterdir()) == [merged.folder]


@pytest.mark.parametrize(("task", "words"), REFUSED.items(), ids=list(REFUSED))
def test_what_cannot_be_merged_is_refused_before_anything_is_written(
    merge: Callable[[str], MergedModel], task: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(AdapterRejectedError, match=words):
        merge(task)
    assert not list(tmp_path.iterdir())


def test_the_frozen_adapters_of_each_method_are_merged_or_refused() -> None:
    merged = {read_manifest(FOLDERS[task]).method for task in MERGED}
    own = {name for name, method in METHODS.items() if issubclass(method, OwnWeightsMethod)}
    assert merged >= own - {"probe"}
    assert not merged & {"prompt-tuning", "p-tuning", "p-tuning-v2", "qlora"}


def test_a_damaged_adapter_or_an_existing_folder_leaves_nothing(tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(FOLDERS["reviews-lora"], tmp_path / "damaged"))
    weights = damaged / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    identity = read_manifest(damaged).adapter_id
    with pytest.raises(AdapterRejectedError):
        merge_adapter(damaged, tmp_path / "merged", expected_id=identity, place=BasePlace())
    with pytest.raises(ConflictError):
        merge_adapter(FOLDERS["reviews-lora"], damaged, expected_id=identity, place=BasePlace())
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_a_folder_for_the_hub_names_base_licence_and_metrics(tmp_path: Path) -> None:
    manifest = write_hub_folder(
        FOLDERS["reviews-lora"], tmp_path / "hub", base="team/encoder", license_id="apache-2.0"
    )
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    assert (card.data.base_model, card.data.license, card.data.library_name) == (
        "team/encoder",
        "apache-2.0",
        "peft",
    )
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values == {name: metric.value for name, metric in manifest.evaluation.metrics.items()}
    config = json.loads((tmp_path / "hub" / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == "team/encoder"
    assert manifest.adapter_id in card.text
    # What PEFT reads is what was registered, but for the name of the base.
    registered = FOLDERS["reviews-lora"] / "adapter_model.safetensors"
    assert (tmp_path / "hub" / registered.name).read_bytes() == registered.read_bytes()


def test_a_layout_of_lorrys_own_is_said_to_be_one(tmp_path: Path) -> None:
    write_hub_folder(FOLDERS["reviews-bitfit"], tmp_path / "hub", base="team/encoder", license_id=None)
    head = (tmp_path / "hub" / "README.md").read_text("utf-8").split("---\n")[1]
    assert yaml.safe_load(head)["library_name"] == "lorry"
    assert "license" not in yaml.safe_load(head)


def test_pushing_needs_a_token_and_makes_a_private_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UsageError, match="no token"):
        push_folder(tmp_path, "team/reviews")

    secret = "-".join(["not", "a", "token"])
    calls: list[tuple[str, dict[str, Any]]] = []

    class Api:
        def __init__(self, token: str) -> None:
            assert token == secret

        def create_repo(self, repository: str, **options: Any) -> None:
            calls.append((repository, options))

        def upload_folder(self, **options: Any) -> Any:
            calls.append(("upload", options))
            return type("Commit", (), {"commit_url": "https://hub.example/commit/1"})

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: secret)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert hub_export.push_folder(tmp_path, "team/reviews") == "https://hub.example/commit/1"
    assert calls[0] == ("team/reviews", {"private": True, "exist_ok": True})
    assert calls[1][1]["folder_path"] == tmp_path
