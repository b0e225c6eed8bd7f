"""``lorry export``: what it prints can be run, and what an engine cannot serve is refused with reasons."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lorry_pipelines.cli import lorry
from lorry_registry.errors import AdapterRejectedError

FROZEN = max((Path(__file__).parents[3] / "frozen").glob("*/store")).parent
GENERATION = "restaurants-gpt2-lora"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    store = Path(shutil.copytree(FROZEN / "store", tmp_path / "store"))
    monkeypatch.syspath_prepend(str(FROZEN))
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LORRY_STORE", str(store))
    monkeypatch.chdir(tmp_path)
    return store


def export(*arguments: str) -> Result:
    return CliRunner().invoke(lorry, ["export", *arguments])


def test_the_command_of_vllm_names_base_rank_and_adapters(store: Path) -> None:
    document = json.loads(export("vllm", GENERATION, "--json").stdout)
    (base,) = FROZEN.glob("frozen_bases_*/gpt2")
    assert document["command"][:3] == ["vllm", "serve", str(base)]
    assert document["command"][-2:] == ["--max-loras", "1"]
    assert document["environment"]["LORRY_STORE"] == str(store)
    assert document["models"][GENERATION].startswith(f"{GENERATION}@sha256:")
    lines = export("vllm", GENERATION).stdout.splitlines()
    assert shlex.split(lines[-2]) == document["command"]
    assert [line.split("=")[0] for line in lines[:-2]] == [
        f"export {name}" for name in document["environment"]
    ]


def test_every_reason_against_vllm_is_listed() -> None:
    refused = export("vllm", GENERATION, "questions-lora", "reviews-ia3", "reviews-lora")
    assert refused.exit_code == AdapterRejectedError.exit_code
    message = " ".join(refused.stderr.split())
    assert "questions-lora: vLLM has no LoRA for tasks of kind question-answering" in message
    assert "reviews-ia3: its method is ia3" in message
    assert "reviews-lora: its base is a BertForPreTraining" in message
    assert GENERATION not in message
