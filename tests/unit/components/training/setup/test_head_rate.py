"""How fast heads learn: no faster than the adapter, a fitted one slowly, and as the task says if it does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.methods.base import is_newly_initialized
from lorry_components.steps.prepare_data.step import load_card, load_part
from lorry_components.tasks.resolution import resolve_task
from lorry_components.tasks.resolved_recipe import write_out
from lorry_components.training.assembly import build_trainer
from lorry_components.training.distributed.process_group import ALONE
from lorry_components.training.setup.head_rate import FITTED_HEAD_RATE, choose_head_rate
from lorry_components.training.setup.model_setup import set_up
from lorry_registry.tasks.task_spec import HeadSpec, TaskSpec

MakeSpec = Callable[..., TaskSpec]
FITTED = {"init": "probe"}


@pytest.mark.parametrize(
    ("head", "rate", "is_fitted", "expected"),
    [
        (None, 3e-2, False, 3e-2),
        (None, 3e-2, True, FITTED_HEAD_RATE),
        (None, 1e-4, True, 1e-4),
        (HeadSpec(init="probe"), 3e-2, True, FITTED_HEAD_RATE),
        (HeadSpec(init="probe", learning_rate=5e-3), 3e-2, True, 5e-3),
        (HeadSpec(learning_rate=5e-3), 1e-4, False, 5e-3),
    ],
)
def test_the_rate_of_a_head(head: HeadSpec | None, rate: float, is_fitted: bool, expected: float) -> None:
    assert choose_head_rate(head, rate, is_fitted=is_fitted) == expected


@pytest.mark.parametrize(
    ("method", "head", "expected"),
    [
        ("prompt-tuning", FITTED, (3e-2, FITTED_HEAD_RATE)),
        ("vera", FITTED, (3e-2, FITTED_HEAD_RATE)),
        ("full", FITTED, (1e-4, 1e-4)),
        ("prompt-tuning", {"init": "random"}, (3e-2, 3e-2)),
        ("lora", {"init": "random", "learning_rate": 1e-2}, (2e-3, 1e-2)),
    ],
)
def test_the_optimizer_learns_the_head_at_its_rate(
    make_spec: MakeSpec,
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
    method: str,
    head: dict[str, Any],
    expected: tuple[float, float],
) -> None:
    data = tiny_data("classification")
    spec = make_spec("classification", method, head=head)
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"learning_rate": expected[0]})})
    task, labels = resolve_task(spec), load_card(data).labels
    task_type = task.task_type.settle(task.base.folder)
    setup = set_up(spec, task.base, task_type, task.build_method(), labels=labels, group=ALONE)
    rows = {part: load_part(data, part) for part in ("train", "validation")}
    trainer = build_trainer(spec, setup, head=None, labels=labels, checkpoints=tmp_path, callbacks=[], **rows)
    rates: dict[bool, set[float]] = {True: set(), False: set()}
    names = {parameter: name for name, parameter in setup.model.named_parameters()}
    for group in trainer.create_optimizer().param_groups:
        for parameter in group["params"]:
            is_head = is_newly_initialized(names[parameter], setup.newly_initialized)
            rates[is_head].add(round(group["lr"], 9))
    assert rates == {False: {expected[0]}, True: {expected[1]}}


def test_an_adapter_records_the_default(make_spec: MakeSpec) -> None:
    name = "head.highest_learning_rate"
    assert write_out(make_spec("classification", head=FITTED))[name] == FITTED_HEAD_RATE
    assert name not in write_out(make_spec("classification", head={**FITTED, "learning_rate": 1e-2}))
    assert name not in write_out(make_spec("classification", head={"init": "random"}))


def test_another_rate_is_another_recipe(make_spec: MakeSpec) -> None:
    spec = make_spec("classification", head=FITTED)
    other = make_spec("classification", head={**FITTED, "learning_rate": 1e-2})
    assert spec.recipe_digest != other.recipe_digest
