"""Every method trains with its frozen weights in half precision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.methods import METHODS
from lorry_components.steps.finetune.step import finetune
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.tasks.task_spec import TaskSpec


@pytest.mark.parametrize("base", ["bert", "gpt2"])
@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"qlora", "probe"}))
def test_a_method_trains_in_bf16(
    make_spec: Callable[..., TaskSpec],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    method: str,
    base: str,
) -> None:
    if base == "gpt2" and method == "peft":
        pytest.skip("it is refused there")
    train: dict[str, Any] = {"epochs": None, "steps": 2, "precision": "bf16"}
    spec = make_spec(method=method, base=base, train=train)
    if method == "lora":
        section = spec.method.model_copy(update={"options": {"r": 4}})
        spec = spec.model_copy(update={"method": section})
    summary = finetune(
        resolve_task(spec), tiny_data("regression"), tmp_path / "c", checkpoints=tmp_path / "checkpoints"
    )
    assert (summary.precision, summary.steps) == ("bf16", 2)
