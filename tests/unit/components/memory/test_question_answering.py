"""Plans of tasks whose head points at tokens."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lorry_components.memory import plan_task
from lorry_components.memory.upper_bounds import bound_training
from lorry_components.models.configuration import read_configuration
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.manifest import WEIGHTS_NAME
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
COLUMNS = {"text": "text", "text_pair": "context", "label": "label"}
ENCODERS = ("FacebookAI/roberta-base", "google-bert/bert-base-cased")
METHODS: tuple[Mapping[str, Any], ...] = (
    {"name": "lora", "r": 4, "targets": "all-linear"},
    {"name": "prompt-tuning", "tokens": 4},
    {"name": "p-tuning-v2", "tokens": 4},
    {"name": "adapter-p", "size": 4},
    {"name": "bitfit"},
    {"name": "full"},
)


@pytest.fixture
def make(make_spec: MakeSpec, tmp_path: Path) -> MakeSpec:
    source = tmp_path / "rows.jsonl"
    rows = [
        {"text": f"the film {row}", "context": f"a lovely plot and story {row}", "label": "lovely plot"}
        for row in range(60)
    ]
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")

    def make_it(method: Mapping[str, Any], **sections: Any) -> TaskSpec:
        data = {"source": str(source), "columns": COLUMNS} | sections.pop("data", {})
        return make_spec(method, kind="question-answering", data=data, **sections)

    return make_it


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method["name"])
def test_the_plan_is_what_a_run_finds(method: Mapping[str, Any], make: MakeSpec, tmp_path: Path) -> None:
    spec = make(method)
    prepare_data(resolve_task(spec), tmp_path / "data")
    candidate = tmp_path / "candidate"
    summary = finetune(resolve_task(spec), tmp_path / "data", candidate, checkpoints=tmp_path / "checkpoints")
    plan = plan_task(spec)
    assert plan.parameters == summary.parameters
    assert plan.parameters.head == 66
    assert plan.notes == ()
    # Of a full fine-tuning only what changed is saved.
    size = (candidate / "adapter" / WEIGHTS_NAME).stat().st_size
    assert size <= plan.adapter_bytes if method["name"] == "full" else size == plan.adapter_bytes


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("method", [{"name": "full"}, {"name": "lora"}])
def test_the_bound_is_above_the_plan_and_knows_no_vocabulary(
    name: str, method: dict[str, Any], make: MakeSpec
) -> None:
    spec = make(
        method,
        base={"model": name, "revision": "0" * 40},
        data={"max_length": 384},
        train={"hidden_dropout": 0.1, "attention_dropout": 0.1},
    )
    known = read_configuration(spec.base)
    plan = plan_task(spec, base=known)
    bound = bound_training(spec, known.values)
    assert bound is not None
    assert bound >= plan.training.high
    # Two scores a token, of eight windows.
    scores = next(part for part in plan.training.parts if part.name == "logits")
    assert scores.high <= 4 * 4 * 2 * 8 * 384
    assert plan.parameters.head == 2 * known.values["hidden_size"] + 2
