"""What is said of soft tokens before a run on a small base."""

from collections.abc import Callable
from typing import Any

import pytest

from lorry_components.memory.expectations import describe_expectation
from lorry_components.models.configuration import BaseConfiguration, read_configuration
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]


@pytest.mark.parametrize(
    ("method", "is_told"),
    [("prompt-tuning", True), ("p-tuning", True), ("p-tuning-v2", True), ("lora", False), ("bitfit", False)],
)
def test_soft_tokens_on_a_small_base(make_plan_spec: MakeSpec, method: str, is_told: bool) -> None:
    spec = make_plan_spec(method={"name": method})
    told = describe_expectation(spec, lambda: read_configuration(spec.base))
    assert told.startswith(f"{method} is not expected to learn much") is is_told
    assert bool(told) is is_told


@pytest.mark.parametrize(
    ("sizes", "is_small"),
    [
        ({"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}, True),
        ({"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072}, True),
        ({"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096}, False),
    ],
    ids=["MiniLM", "BERT-base", "BERT-large"],
)
def test_the_size_decides(make_plan_spec: MakeSpec, sizes: dict[str, Any], is_small: bool) -> None:
    spec = make_plan_spec(method={"name": "p-tuning-v2"})
    values = {**read_configuration(spec.base).values, **sizes, "vocab_size": 30522, "num_attention_heads": 12}
    base = BaseConfiguration(values, "a base")
    assert bool(describe_expectation(spec, lambda: base)) is is_small


def test_nothing_is_known_of_other_task_types(make_plan_spec: MakeSpec) -> None:
    spec = make_plan_spec(method={"name": "p-tuning-v2"})
    other = spec.model_copy(update={"kind": "text-generation"})
    assert describe_expectation(other, lambda: read_configuration(spec.base)) == ""
