"""The plugin for vLLM against vLLM's own classes: what it resolves, what it refuses, and that both agree.

vLLM's engine needs a GPU and does not run here. ``make vllm-sources`` fetches the Python sources.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "build" / "vllm"
FROZEN = max((ROOT / "tests" / "frozen").glob("*/store")).parent
GENERATION = "restaurants-gpt2-lora"

pytestmark = pytest.mark.skipif(
    not (SOURCES / "vllm").is_dir() and importlib.util.find_spec("vllm") is None,
    reason="vLLM's sources are not here: make vllm-sources",
)

_RESOLVE = """
import asyncio, json, sys
import lorry_vllm
from vllm.lora.resolver import LoRAResolverRegistry
from vllm.lora.request import LoRARequest
from vllm.lora.peft_helper import PEFTHelper
from vllm.config.lora import LoRAConfig

lorry_vllm.register()
lorry_vllm.register()
resolver = LoRAResolverRegistry.get_resolver("lorry")
answers = []
for base, name in json.loads(sys.argv[1]):
    request = asyncio.run(resolver.resolve_lora(base, name))
    if request is None:
        answers.append(None)
        continue
    assert isinstance(request, LoRARequest), request
    helper = PEFTHelper.from_local_dir(request.path, 1024)
    helper.validate_legal(LoRAConfig(max_lora_rank=512))
    answers.append({"name": request.name, "path": request.path})
print("answers:", json.dumps(answers))
"""
_VALIDATE = """
import json, sys
from vllm.lora.peft_helper import PEFTHelper
from vllm.config.lora import LoRAConfig

answers = {}
for folder in json.loads(sys.argv[1]):
    try:
        PEFTHelper.from_local_dir(folder, 1024).validate_legal(LoRAConfig(max_lora_rank=512))
    except ValueError as error:
        answers[folder] = str(error)
    else:
        answers[folder] = ""
print("answers:", json.dumps(answers))
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FROZEN / "store", tmp_path / "store"))


@pytest.fixture
def run_in_vllm(tmp_path: Path, store: Path) -> Callable[[str, Any], tuple[Any, str]]:
    """Run a script that imports vLLM in a process of its own; return what it answers, and its log."""
    folders = [SOURCES, ROOT / "infra" / "vllm"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "LORRY_HOME": str(tmp_path / "home"),
        "LORRY_STORE": str(store),
        "VLLM_NO_USAGE_STATS": "1",
    }

    def run(script: str, given: Any) -> tuple[Any, str]:
        finished = subprocess.run(
            [sys.executable, "-c", script, json.dumps(given)],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
            timeout=240,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        (line,) = (line for line in finished.stdout.splitlines() if line.startswith("answers: "))
        return json.loads(line.removeprefix("answers: ")), finished.stdout + finished.stderr

    return run


def find_base(store: Path, task: str) -> str:
    """Return the folder of a frozen task's base."""
    registry = Registry(LocalStore(store), store.parent / "cache")
    reference = registry.resolve(task, 1).manifest.base.model
    package, _, name = reference.removeprefix("package:").partition("/")
    return str(FROZEN / package / name)


def test_names_are_resolved_to_verified_folders_and_all_else_is_refused_with_its_reason(
    run_in_vllm: Callable[[str, Any], tuple[Any, str]], store: Path
) -> None:
    registry = Registry(LocalStore(store), store.parent / "cache")
    champion = registry.resolve(GENERATION)
    base = find_base(store, GENERATION)
    damaged = registry.resolve("restaurants-gpt2-prompt-tuning", 1)
    with (store / "adapters" / damaged.adapter_id.removeprefix("sha256:") / "adapter_model.safetensors").open(
        "ab"
    ) as weights:
        weights.write(b"more")
    asked = {
        (base, GENERATION): None,
        (base, f"{GENERATION}@{champion.adapter_id}"): None,
        (base, f"{GENERATION}@sha256:{'0' * 64}"): "has no version sha256:0000",
        (base, "unheard-of"): "unheard-of",
        (base, "../../etc"): "../../etc",
        (find_base(store, "reviews-lora"), GENERATION): "it was trained on",
        ("owner/name", GENERATION): "only a base in a folder can be compared",
        (base, "restaurants-gpt2-prompt-tuning"): "restaurants-gpt2-prompt-tuning",
        (find_base(store, "reviews-ia3"), "reviews-ia3"): "vLLM serves LoRA alone",
    }
    answers, log = run_in_vllm(_RESOLVE, list(asked))
    for (pair, words), answer in zip(asked.items(), answers, strict=True):
        if words is None:
            assert answer["name"] == pair[1]
            # vLLM's cache of prefixes goes by the path.
            assert champion.adapter_id.removeprefix("sha256:") in answer["path"]
        else:
            assert answer is None, pair
            assert words in log, (pair, log)
    assert "Traceback" not in log


def test_what_the_registry_says_of_configurations_is_what_vllm_does(
    run_in_vllm: Callable[[str, Any], tuple[Any, str]], tmp_path: Path
) -> None:
    from lorry_registry.manifest import Manifest
    from lorry_registry.records.vllm_support import list_refusals

    configs = (FROZEN / "store" / "adapters").glob("*/adapter_config.json")
    folders = [path.parent for path in configs if '"peft_type": "LORA"' in path.read_text("utf-8")]
    assert len(folders) >= 5
    answers, _ = run_in_vllm(_VALIDATE, list(map(str, folders)))
    for folder in folders:
        manifest = Manifest.parse((folder / "manifest.json").read_bytes(), where=str(folder))
        # Whether its classes fit kind and base is no question of the configuration.
        manifest = manifest.model_copy(update={"kind": "text-generation", "head": None})
        fit = manifest.base.model_copy(update={"architecture": "GPT2LMHeadModel"})
        manifest = manifest.model_copy(update={"base": fit})
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        refusals = list_refusals(manifest, config)
        assert bool(refusals) == bool(answers[str(folder)]), (manifest.task, refusals, answers[str(folder)])
