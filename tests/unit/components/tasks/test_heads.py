"""The head section of a task file: what is accepted, what is refused, and what a recipe records of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lorry_components.memory.plan import plan_task
from lorry_components.models.configuration import load_config
from lorry_components.task_types import TASK_TYPES, InputForm
from lorry_components.task_types.head_choice import choose_pooling
from lorry_components.tasks.base_checks import check_base
from lorry_components.tasks.definition import find_task_type, inspect_task
from lorry_registry.errors import InvalidTaskError
from lorry_registry.manifest import Pooling
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
MEAN = Pooling(place="mean", normalizes=True)


def describe(**sections: Any) -> dict[str, Any]:
    return {
        "name": "reviews",
        "kind": "text-classification",
        "base": {"model": "./base"},
        "data": {"source": "rows.jsonl"},
        "method": {"name": "lora"},
    } | sections


def list_faults(document: Mapping[str, Any]) -> dict[str, str]:
    return {fault.where: fault.what for fault in inspect_task(document)[1]}


def test_every_field_of_the_section_is_in_the_recipe() -> None:
    digests = {
        TaskSpec.model_validate(describe(**({} if head is None else {"head": head}))).recipe_digest
        for head in (None, {}, {"pooling": "mean"}, {"init": "probe"}, {"dropout": 0.1})
    }
    assert len(digests) == 5


def test_all_faults_of_the_section_are_listed_with_the_others() -> None:
    document = describe(
        head={"pooling": "max", "init": "zero", "dropout": 1.0, "size": 3}, method={"name": "lora", "rr": 1}
    )
    assert list_faults(document).keys() == {
        *("head.pooling", "head.init", "head.dropout", "head.size", "method.rr")
    }


@pytest.mark.parametrize("kind", sorted(TASK_TYPES.keys() - {"text-classification", "regression"}))
def test_a_task_without_a_head_on_whole_texts_refuses_it(kind: str) -> None:
    faults = list_faults(describe(kind=kind, head={"pooling": "mean"}, method={"name": "probe"}))
    assert faults["head"] == f"a {kind} task has no head on whole texts"
    assert "probe" in faults["method.name"] or "image-generation" in faults["method.name"]


def test_a_probe_refuses_what_only_a_training_has() -> None:
    faults = list_faults(
        describe(
            method={"name": "probe"},
            head={"init": "random", "dropout": 0.1, "learning_rate": 0.01},
            train={"epochs": 3, "batch_size": 8, "seed": 1},
        )
    )
    assert faults == {
        "head.init": "probe is nothing but a fitted head",
        "head.dropout": "probe trains nothing, and this would do nothing",
        "head.learning_rate": "probe trains nothing, and this would do nothing",
        "train": "probe fits its head at once, and batch_size, epochs would do nothing",
    }
    train = {"seed": 1, "precision": "fp32"}
    assert not list_faults(describe(method={"name": "probe"}, head={"pooling": "mean"}, train=train))


def test_a_probe_is_not_fitted_to_the_head_of_transformers() -> None:
    own = {"pooling": "transformers"}
    assert list_faults(describe(head={**own, "init": "probe"})).keys() == {"head.init"}
    assert list_faults(describe(head=own, method={"name": "probe"})).keys() == {"head.pooling"}
    assert not list_faults(describe(head=own))


def test_the_head_of_transformers_can_be_asked_for_where_the_base_states_another() -> None:
    spec = TaskSpec.model_validate(describe(head={"pooling": "transformers"}))
    form = find_task_type(spec).form
    assert (form.pooling, form.fits_head) == (None, False)
    assert find_task_type(TaskSpec.model_validate(describe())).form.pooling == "stated"


@pytest.mark.parametrize(
    ("style", "form", "stated", "pooling"),
    [
        # What the base says is read only where the task asks for it.
        ("bert", {"pooling": None}, MEAN, None),
        ("bert", {"pooling": "stated-if-few"}, MEAN, None),
        ("bert", {"pooling": "auto"}, MEAN, MEAN),
        ("bert", {"pooling": "auto"}, None, None),
        ("bert", {"pooling": "auto", "fits_head": True}, None, Pooling(place="first")),
        ("gpt2", {"pooling": "auto", "fits_head": True}, None, Pooling(place="last")),
        ("bert", {"pooling": Pooling(place="first")}, MEAN, Pooling(place="first")),
        ("bert", {"pooling": Pooling(place="last")}, None, Pooling(place="last")),
        # transformers' own head is enough.
        ("gpt2", {"pooling": Pooling(place="last")}, None, None),
        ("gpt2", {"pooling": Pooling(place="last"), "head_dropout": 0.1}, None, Pooling(place="last")),
        ("t5", {"pooling": "auto"}, MEAN, None),
    ],
)
def test_which_head_a_task_gets(
    family_base: Callable[[str], Path],
    style: str,
    form: Mapping[str, Any],
    stated: Pooling | None,
    pooling: Pooling | None,
) -> None:
    config = load_config(family_base(style))
    assert choose_pooling(InputForm(max_length=8, **form), config, stated) == pooling


@pytest.mark.parametrize(
    ("style", "head", "where"),
    [
        ("t5", {"pooling": "mean", "init": "probe"}, ["head.pooling", "head.init"]),
        ("gpt2", {"dropout": 0.1}, ["head.dropout"]),
        ("gpt2", {"dropout": 0.1, "pooling": "transformers"}, ["head.dropout"]),
        ("bert", {"dropout": 0.1}, []),
        ("gpt2", {"dropout": 0.1, "pooling": "mean"}, []),
    ],
)
def test_a_head_that_does_not_suit_the_base_is_refused(
    make_spec: MakeSpec,
    family_base: Callable[[str], Path],
    style: str,
    head: Mapping[str, Any],
    where: list[str],
) -> None:
    folder = family_base(style)
    spec = make_spec("classification", {"name": "lora", "r": 2}, base=f"{folder}/", head=head)
    try:
        check_base(spec, folder)
    except InvalidTaskError as error:
        found = [fault.where for fault in error.faults]
    else:
        found = []
    assert found == where


def test_a_base_that_pools_in_an_unknown_way_is_refused(
    make_spec: MakeSpec, make_base: Callable[..., Path]
) -> None:
    folder = make_base()
    (folder / "modules.json").write_text('[{"type": "x.Pooling", "path": "1_Pooling"}]', "utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_max_tokens": true}', "utf-8")
    with pytest.raises(InvalidTaskError, match="pools by pooling_mode_max_tokens"):
        check_base(make_spec("classification", base=f"{folder}/", head={}), folder)
    check_base(make_spec("classification", base=f"{folder}/", head={"pooling": "mean"}), folder)
    # A task that asks for nothing is refused nothing.
    spec = make_spec("classification", base=f"{folder}/")
    check_base(spec, folder)
    assert find_task_type(spec).settle(folder).form.pooling is None


@pytest.mark.parametrize(
    ("kind", "fields", "rows", "pooling", "is_fitted"),
    [
        ("classification", {}, 8000, Pooling(place="mean"), True),
        ("classification", {"head": {}}, 8000, Pooling(place="mean"), False),
        ("classification", {"head": {"pooling": "first"}}, 8000, Pooling(place="first"), False),
        ("regression", {}, 200, None, False),
        ("regression", {}, 199, Pooling(place="mean"), True),
        ("regression", {"head": {"pooling": "transformers"}}, 50, None, False),
        # How many there are is not known before data is read.
        ("regression", {}, None, None, False),
    ],
)
def test_a_head_that_is_left_open_is_what_the_base_states(
    make_spec: MakeSpec,
    make_base: Callable[..., Path],
    kind: str,
    fields: Mapping[str, Any],
    rows: int | None,
    pooling: Pooling | None,
    is_fitted: bool,
) -> None:
    folder = make_base()
    spec = make_spec(kind, {"name": "lora", "r": 2}, base=f"{folder}/", **fields)
    states_nothing = find_task_type(spec).settle(folder, rows).form
    assert not states_nothing.fits_head
    assert states_nothing.pooling == (pooling if pooling == Pooling(place="first") else None)
    (folder / "modules.json").write_text('[{"type": "x.Pooling", "path": "1_Pooling"}]', "utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}', "utf-8")
    form = find_task_type(spec).settle(folder, rows).form
    assert (form.pooling, form.fits_head) == (pooling, is_fitted)


def test_the_dropout_of_a_head_is_the_tasks(make_spec: MakeSpec, tiny_base: Callable[[str], Path]) -> None:
    for pooling in ("auto", "mean"):
        spec = make_spec("classification", head={"pooling": pooling, "dropout": 0.25})
        task_type = TASK_TYPES[spec.kind](InputForm.of(spec)).settle(tiny_base("bert"))
        model: Any = task_type.load_model(tiny_base("bert"), ["no", "yes"])[0]
        assert model.dropout.p == 0.25


def test_a_plan_of_a_probe_has_no_gradients(make_spec: MakeSpec) -> None:
    plan = plan_task(make_spec("classification", "probe", train={"epochs": None}), labels=["a", "b", "c"])
    assert (plan.parameters.adapter, plan.parameters.head) == (0, 99)
    assert {part.name for part in plan.training.parts}.isdisjoint({"gradients", "optimiser"})
    trained = plan_task(make_spec("classification", "lora", head={"pooling": "mean"}), labels=["a", "b", "c"])
    assert trained.parameters.head == 99
    assert plan.training == plan.inference
    assert plan.advice == ()
    # Nothing of it is assumed, and predicting with either takes the same.
    assert plan.notes == trained.notes == ()
    probe, lora = (
        next(part.high for part in each.inference.parts if part.name == "activations")
        for each in (plan, trained)
    )
    assert probe == pytest.approx(lora, rel=0.5)
