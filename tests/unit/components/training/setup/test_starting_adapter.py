"""A training that begins with the champion's adapter: with it as it is, or with the base and a reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from lorry_components.data.fingerprinting import FINGERPRINTS_NAME, collect_fingerprints
from lorry_components.data.prepared import load_part
from lorry_components.steps.finetune.step import finetune, name_checkpoints
from lorry_components.tasks.base_checks import check_training
from lorry_components.tasks.definition import check_sections, find_method, find_task_type
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.setup.starting_adapter import StartingAdapter
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.manifest import WEIGHTS_NAME, Manifest
from lorry_registry.records.row_fingerprints import RowFingerprints
from lorry_registry.tasks.task_sections import TaskSections
from lorry_registry.tasks.task_spec import TaskSpec

from fixtures.adapters import write_adapter

ID = f"sha256:{'5' * 64}"
# A step that moves nothing that a float could tell.
STILL = {"steps": 1, "learning_rate": 1e-12, "start": "champion"}


@pytest.fixture
def start_from(tmp_path: Path) -> Callable[..., StartingAdapter]:
    """Return a function from a trained candidate to what a training begins with."""

    def make(trained: Any, *, seen: Any = "its own", **changes: Any) -> StartingAdapter:
        summary: TrainingSummary = trained.summary
        manifest: Manifest = write_adapter(tmp_path / "adapter").manifest.model_copy(
            update={
                "kind": trained.spec.kind,
                "method": trained.spec.method.name,
                "base": summary.base,
                "labels": summary.labels,
                "head": summary.head,
                "recipe": trained.spec.describe_recipe(),
                **changes,
            }
        )
        content = (trained.candidate / FINGERPRINTS_NAME).read_bytes()
        rows = RowFingerprints.parse(content, where="here") if seen == "its own" else seen
        return StartingAdapter(3, ID, trained.candidate / "adapter", manifest, rows)

    return make


@pytest.fixture
def go_on(
    make_spec: Callable[..., TaskSpec], tiny_data: Callable[[str], Path], tmp_path: Path
) -> Callable[..., tuple[TrainingSummary, Path]]:
    def train(
        task: str, method: str | dict[str, Any], start: StartingAdapter, **fields: Any
    ) -> tuple[TrainingSummary, Path]:
        spec = make_spec(task, method, train={"epochs": None, **STILL, **fields})
        target = tmp_path / "candidate"
        summary = finetune(
            resolve_task(spec), tiny_data(task), target, checkpoints=tmp_path / "checkpoints", start=start
        )
        return summary, target / "adapter"

    return train


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("method", ["lora", "ia3", "bitfit", "full", "adapter-p", "adapter-l"])
def test_training_begins_with_the_adapter_as_it_is(
    trained: Callable[..., Any],
    start_from: Callable[..., StartingAdapter],
    go_on: Callable[..., tuple[TrainingSummary, Path]],
    task: str,
    method: str,
) -> None:
    former = trained(task, method)
    summary, adapter = go_on(task, method, start_from(former))
    assert (summary.inputs.makeup.start, summary.start_refused) == (ID, "")
    before, after = (load_file(folder / WEIGHTS_NAME) for folder in (former.candidate / "adapter", adapter))
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        assert tensor.allclose(before[name], atol=1e-5), name


def test_without_it_training_begins_elsewhere(
    trained: Callable[..., Any],
    make_spec: Callable[..., TaskSpec],
    tiny_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    former = trained("regression", "lora")
    spec = make_spec("regression", "lora", train={"epochs": None, **STILL})
    data, target = tiny_data("regression"), tmp_path / "candidate"
    summary = finetune(resolve_task(spec), data, target, checkpoints=tmp_path / "checkpoints")
    assert summary.inputs.makeup.start is None
    before = load_file(former.candidate / "adapter" / WEIGHTS_NAME)
    after = load_file(target / "adapter" / WEIGHTS_NAME)
    assert not all(tensor.allclose(before[name], atol=1e-5) for name, tensor in after.items())


@pytest.mark.parametrize(
    ("method", "changes", "told"),
    [
        ("lora", {"labels": ("bad", "good")}, "v3 has another labels"),
        ("lora", {"kind": "regression", "method": "bitfit"}, "v3 has another kind and method"),
        (
            {"name": "lora", "r": 2, "targets": ["query", "value"]},
            {},
            "v3 does not fit: it was trained with another",
        ),
        ({"name": "lora", "r": 4, "alpha": 5, "targets": ["query", "value"]}, {}, "another lora_alpha"),
    ],
    ids=["labels", "kind", "rank", "scale"],
)
def test_what_does_not_fit_is_told_and_training_begins_with_the_base(
    trained: Callable[..., Any],
    start_from: Callable[..., StartingAdapter],
    go_on: Callable[..., tuple[TrainingSummary, Path]],
    method: str | dict[str, Any],
    changes: dict[str, Any],
    told: str,
) -> None:
    former = trained("classification", "lora")
    summary, _ = go_on("classification", method, start_from(former, **changes))
    assert told in summary.start_refused
    assert summary.inputs.makeup.start is None


def test_no_test_row_is_learned_by_way_of_the_champion(
    trained: Callable[..., Any],
    start_from: Callable[..., StartingAdapter],
    go_on: Callable[..., tuple[TrainingSummary, Path]],
    tiny_data: Callable[[str], Path],
) -> None:
    former = trained("classification", "lora")
    recipe = former.spec.describe_recipe()
    otherwise = {**recipe, "data": {**recipe["data"], "split": {"validation": 0.1, "test": 0.1, "seed": 9}}}
    summary, _ = go_on("classification", "lora", start_from(former, recipe=otherwise))
    assert summary.start_refused == "the data of v3 were divided otherwise: it may have learned test rows"
    summary, _ = go_on("classification", "lora", start_from(former, seen=None))
    assert summary.start_refused == "which rows v3 was trained on is not known"
    examples = load_part(tiny_data("classification"), "test")
    form, salt = find_task_type(former.spec).data_form, former.summary.inputs.data_digest
    seen = collect_fingerprints({"train": examples}, form, trained=("train",), salt=salt)
    summary, _ = go_on("classification", "lora", start_from(former, seen=seen))
    assert summary.start_refused == f"v3 was trained on {len(examples)} of the present test rows"


def test_checkpoints_of_another_start_are_others(
    trained: Callable[..., Any], start_from: Callable[..., StartingAdapter], tiny_data: Callable[[str], Path]
) -> None:
    former = trained("regression", "lora")
    task, data = resolve_task(former.spec), tiny_data("regression")
    names = {name_checkpoints(task, data, start=start) for start in (None, start_from(former))}
    assert len(names) == 2


@pytest.mark.parametrize(
    ("method", "sections", "told"),
    [
        ("p-tuning", {}, "p-tuning cannot go on from an adapter"),
        ("adalora", {}, "adalora cannot go on from an adapter"),
        ({"name": "lora", "init": "pissa", "targets": ["query"]}, {}, "saved in twice the rank"),
        ("lora", {"head": {"init": "probe"}}, "replaced by the probe"),
    ],
)
def test_validation_refuses_what_cannot_begin_so(
    make_spec: Callable[..., TaskSpec], method: str | dict[str, Any], sections: dict[str, Any], told: str
) -> None:
    spec = make_spec("classification", method, train={"start": "champion"}, **sections)
    faults = [fault for fault in check_sections(TaskSections.of(spec)) if fault.where == "train.start"]
    assert [told in fault.what for fault in faults] == [True]
    plain = spec.model_copy(update={"train": spec.train.model_copy(update={"start": "base"})})
    assert not [fault for fault in check_sections(TaskSections.of(plain)) if fault.where == "train.start"]


def test_nodes_do_not_fetch_the_champion(make_spec: Callable[..., TaskSpec]) -> None:
    spec = make_spec("classification", train={"start": "champion"}, resources={"nodes": 2})
    (fault,) = check_training(spec, find_task_type(spec), find_method(spec))
    assert fault.where == "train.start"


def test_a_recipe_says_what_training_begins_with(make_spec: Callable[..., TaskSpec]) -> None:
    plain, said = make_spec(), make_spec(train={"start": "base"})
    assert plain.recipe_digest == said.recipe_digest != make_spec(train={"start": "champion"}).recipe_digest
