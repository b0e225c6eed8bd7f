"""A plan is what the run then finds: parameters, the size of the file, and the memory of the process."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lorry_components.memory import describe_plan, is_surely_small, plan_task
from lorry_components.memory.activations import measure_cache
from lorry_components.memory.architecture import (
    build_architecture,
    build_configuration,
    measure_weights_file,
)
from lorry_components.memory.class_counts import find_classes
from lorry_components.methods.tensors import save_tensors
from lorry_components.models.configuration import (
    BaseConfiguration,
    read_configuration,
    read_known_configurations,
)
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.task_types import TASK_TYPES, InputForm
from lorry_components.tasks.base_checks import check_training
from lorry_components.tasks.definition import find_method, find_task_type, inspect_task
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.setup.precision import choose_task_precision, detect_processor
from lorry_registry.errors import BaseModelError, TrainingError
from lorry_registry.manifest import WEIGHTS_NAME
from lorry_registry.tasks.input_specs import BaseSpec
from lorry_registry.tasks.task_document import apply_overrides
from lorry_registry.tasks.task_spec import TaskSpec

METHODS: tuple[Mapping[str, Any], ...] = (
    {"name": "lora", "r": 4, "targets": ["query", "value"]},
    {"name": "lora", "r": 4, "targets": ["query", "value"], "init": "pissa"},
    {"name": "lora", "r": 4, "targets": ["query", "value"], "init": "olora"},
    {"name": "p-tuning", "tokens": 4},
    {"name": "p-tuning", "tokens": 4, "encoder": "lstm"},
    {"name": "full"},
)
REVISION = "0" * 40
MakeSpec = Callable[..., TaskSpec]


def _train(spec: TaskSpec, folder: Path) -> tuple[Any, Path, tuple[str, ...]]:
    card = prepare_data(resolve_task(spec), folder / "data")
    summary = finetune(
        resolve_task(spec), folder / "data", folder / "candidate", checkpoints=folder / "checkpoints"
    )
    assert card.labels is not None
    return summary, folder / "candidate" / "adapter" / WEIGHTS_NAME, card.labels


@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(map(str, method.values())))
def test_the_plan_is_what_a_run_finds(method: Mapping[str, Any], make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec(method)
    summary, weights, labels = _train(spec, tmp_path)
    plan = plan_task(spec, labels=labels)
    assert plan.parameters == summary.parameters
    assert plan.precision == summary.precision
    # Weight decay or not, one step changes every tensor but embeddings of words that are not in the data.
    assert weights.stat().st_size == plan.adapter_bytes


def test_a_weights_file_is_measured_from_its_shapes(tmp_path: Path) -> None:
    for count in range(1, 9):
        shapes = {f"läyer.{index}" + "x" * index: (index + 1, 3) for index in range(count)}
        save_tensors({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path)
        assert (tmp_path / WEIGHTS_NAME).stat().st_size == measure_weights_file(shapes)


def test_two_classes_are_assumed_and_said_to_be(make_spec: MakeSpec) -> None:
    plan = plan_task(make_spec())
    assert plan.parameters.head == 2 * 32 + 2
    assert any("two classes" in note for note in plan.notes)
    assert not any("classes" in note for note in plan_task(make_spec(), labels=("a", "b", "c")).notes)


def test_classes_are_counted_where_the_data_is_small_and_here(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_classes(make_spec()) == ("maybe", "no", "yes")
    assert find_classes(make_spec(data={"source": str(tmp_path / "nowhere.jsonl")})) is None
    assert find_classes(make_spec(data={"source": "s3://bucket/rows.jsonl"})) is None
    assert find_classes(make_spec(kind="regression")) is None
    monkeypatch.setattr("lorry_components.memory.class_counts._MOST_BYTES", 10)
    assert find_classes(make_spec()) is None


def test_texts_are_no_longer_than_the_base_reads(make_spec: MakeSpec) -> None:
    plan = plan_task(make_spec(data={"max_length": 512}))
    assert plan.tokens == 64
    assert any("64 tokens" in note for note in plan.notes)
    assert plan_task(make_spec({"name": "p-tuning", "tokens": 4}, data={"max_length": 512})).tokens == 60


def test_dropout_takes_memory(make_spec: MakeSpec) -> None:
    without = plan_task(make_spec(train={"hidden_dropout": 0.0})).training.high
    assert plan_task(make_spec(train={"hidden_dropout": 0.1})).training.high > without


def test_methods_say_what_they_hold_and_remember(make_spec: MakeSpec) -> None:
    def list_parts(method: Mapping[str, Any]) -> dict[str, int]:
        return {part.name: part.high for part in plan_task(make_spec(method)).training.parts}

    lora, qlora = (
        list_parts({"name": name, "r": 4, "targets": ["query", "value"]}) for name in ("lora", "qlora")
    )
    assert qlora["weights"] < lora["weights"]
    assert "copy of what is trained" not in lora
    top = list_parts({"name": "ft-top", "layers": 1})
    assert 0 < top["copy of what is trained"] < list_parts({"name": "full"})["copy of what is trained"]


def test_a_bigger_batch_takes_more_and_is_told_before(make_spec: MakeSpec) -> None:
    few, many = (plan_task(make_spec(train={"batch_size": rows})) for rows in (8, 64))
    activations = [
        next(part.high for part in plan.training.parts if part.name == "activations") for plan in (few, many)
    ]
    assert activations[1] == pytest.approx(8 * activations[0], rel=0.02)
    assert few.adapter_bytes == many.adapter_bytes


def test_on_a_gpu_it_is_planned_in_what_the_gpu_is_fast_in(make_spec: MakeSpec) -> None:
    resources = {"count": 1, "node_selector": {"nvidia.com/gpu.product": "Tesla-T4"}}
    plan = plan_task(make_spec(train={"precision": "auto"}, resources=resources))
    assert (plan.device, plan.precision) == ("cuda", "fp16")
    assert plan.host is not None
    plan = plan_task(make_spec(train={"precision": "auto"}))
    here = choose_task_precision(make_spec(train={"precision": "auto"}), detect_processor()).name
    assert (plan.device, plan.precision, plan.gpu_precision, plan.host) == ("cpu", here, "bf16", None)
    assert f"precision auto takes {here}" in " ".join(plan.notes)


def test_processes_divide_a_batch_and_each_loads_the_base(make_spec: MakeSpec) -> None:
    def list_parts(estimate: Any) -> dict[str, int]:
        return {part.name: part.high for part in estimate.parts}

    one, four = (plan_task(make_spec({"name": "full"}, resources={"count": count})) for count in (1, 4))
    assert (one.rows, one.processes) == (8, 1)
    assert (four.rows, four.processes) == (2, 4)
    alone, each = list_parts(one.training), list_parts(four.training)
    assert each["activations"] == pytest.approx(alone["activations"] / 4, rel=0.02)
    # Every process has all weights; DDP averages gradients in buckets of its own.
    assert each["weights"] == alone["weights"]
    assert each["gradients to average"] == each["gradients"]
    assert "gradients to average" not in alone
    offloaded = make_spec(resources={"count": 4}, train={"offload": True})
    assert "gradients to average" not in list_parts(plan_task(offloaded).training)
    assert one.host is not None
    assert four.host is not None
    for name in ("weights", "copy of what is trained"):
        assert list_parts(four.host)[name] == 4 * list_parts(one.host)[name]
    assert four.host.low > 4 * one.host.low
    assert describe_plan(four)["processes"] == 4


def test_a_processor_is_planned_as_one_where_a_gpu_computes_in_the_same_format(make_spec: MakeSpec) -> None:
    # Above 512 tokens both take SDPA, whose kernel for GPUs keeps no scores, dropout or not.
    train = {"precision": "fp32", "attention_dropout": 0.1}
    plan = plan_task(make_spec(data={"max_length": 600}, train=train))
    on_cpu, on_gpu = (
        next(part.high for part in estimate.parts if part.name == "activations")
        for estimate in (plan.training, plan.on_gpu)
    )
    assert on_cpu > 1.1 * on_gpu


def test_a_base_on_a_hub_is_planned_without_its_weights(make_spec: MakeSpec) -> None:
    base = {"model": "FacebookAI/roberta-large", "revision": REVISION}
    plan = plan_task(make_spec(base=base))
    assert plan.parameters.adapter == 24 * 2 * 4 * 2048
    # The head that RobertaForSequenceClassification has: a dense layer and the outputs.
    assert plan.parameters.head == 1024 * 1024 + 1024 + 2 * 1024 + 2
    assert "as lorry knows it" in plan.base


def test_a_base_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = BaseSpec(model="nobody/nothing", revision=REVISION)
    with pytest.raises(BaseModelError, match="not on this machine"):
        read_configuration(spec, may_download=False)

    def refuse(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(BaseModelError, match=r"config\.json cannot be downloaded"):
        read_configuration(spec)


def test_only_the_configuration_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str, str]] = []
    values = {**read_known_configurations()["google-bert/bert-base-cased"], "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(values), "utf-8")

    def serve(model: str, name: str, *, revision: str) -> str:
        asked.append((model, name, revision))
        return str(tmp_path / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", serve)
    found = read_configuration(BaseSpec(model="some/bert", revision=REVISION))
    assert asked == [("some/bert", "config.json", REVISION)]
    assert found.values == values


@pytest.mark.parametrize(
    ("content", "message"), [("[]", "not a JSON object"), ("{", "cannot be read"), (None, "cannot be read")]
)
def test_a_configuration_that_is_none(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, "utf-8")
    with pytest.raises(BaseModelError, match=message):
        read_configuration(BaseSpec(model=str(tmp_path)))


def test_an_architecture_that_transformers_does_not_know() -> None:
    base = BaseConfiguration({"model_type": "abacus"}, "somewhere")
    with pytest.raises(BaseModelError, match="abacus"):
        build_configuration(base)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_attention_heads": 5}, "not a multiple of the number of attention heads"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"hidden_size": "32"}, "'hidden_size' expected int, got str"),
        ({"hidden_size": -32}, "negative dimension"),
        ({"hidden_act": "abacus"}, "KeyError: 'abacus'"),
        ({"pad_token_id": 1000}, "Padding_idx"),
    ],
)
def test_a_configuration_that_contradicts_itself(
    changed: Mapping[str, Any], message: str, make_spec: MakeSpec
) -> None:
    spec = make_spec()
    known = read_configuration(spec.base)
    base = BaseConfiguration({**known.values, **changed}, "somewhere")
    is_surely_small(spec, base)
    with pytest.raises(BaseModelError, match="no model can be built as its config") as caught:
        plan_task(spec, base=base)
    assert message in caught.value.what
    assert caught.value.where == "somewhere"


def test_what_nobody_foresaw_is_told_as_an_error_of_the_base(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AttributeError("no such field")

    monkeypatch.setattr("lorry_components.memory.plan.make_footprint", fail)
    with pytest.raises(BaseModelError, match="cannot be planned: AttributeError: no such field"):
        plan_task(make_spec())


@pytest.mark.parametrize(
    "sizes",
    [{"model_type": "mamba"}, {"model_type": "mamba2", "num_heads": 8, "head_dim": 16, "n_groups": 2}],
)
def test_a_base_without_attention_remembers_a_state(sizes: Mapping[str, Any], make_spec: MakeSpec) -> None:
    known = {"hidden_size": 64, "state_size": 16, "num_hidden_layers": 2, "vocab_size": 500, **sizes}
    base = BaseConfiguration({**known, "tie_word_embeddings": False}, "somewhere")
    config = build_configuration(base)
    inputs = torch.ones((3, 7), dtype=torch.long)
    cache = transformers.AutoModelForCausalLM.from_config(config)(
        input_ids=inputs, use_cache=True
    ).cache_params
    held = sum(
        tensor.numel() * tensor.element_size()
        for layer in cache.layers
        for states in (layer.conv_states, layer.recurrent_states)
        for tensor in states.values()
    )
    assert measure_cache(config, rows=3, tokens=7) == held
    spec = make_spec(
        {"name": "lora", "r": 4, "targets": ["in_proj"]},
        kind="text-generation",
        data={"template": "{text} {label}"},
    )
    parts = {part.name: part.high for part in plan_task(spec, base=base).inference.parts}
    assert parts["keys and values"] > 0


def test_a_base_that_cannot_do_the_kind() -> None:
    base = BaseConfiguration(read_known_configurations()["google-bert/bert-base-cased"], "bert")
    with pytest.raises(BaseModelError, match="AutoModelForSeq2SeqLM"):
        build_architecture(base, build_configuration(base), "AutoModelForSeq2SeqLM")


def test_a_method_that_does_not_fit_is_refused_as_in_a_run(make_spec: MakeSpec) -> None:
    with pytest.raises(TrainingError, match="rank 64"):
        plan_task(make_spec({"name": "lora", "r": 64, "targets": ["query"]}))


@pytest.mark.parametrize("kind", TASK_TYPES)
def test_every_kind_can_be_planned(kind: str) -> None:
    # Images are planned by a way of their own, see tests/unit/images.
    assert TASK_TYPES[kind](InputForm(max_length=8)).match_family(
        text=lambda task_type: task_type.model_class.startswith("AutoModel"),
        diffusion=lambda task_type: task_type.model_class.startswith("UNet"),
    )


def test_a_base_whose_code_looks_at_numbers_gets_a_bound(make_spec: MakeSpec) -> None:
    plan = plan_task(
        make_spec({"name": "lora"}, base={"model": "bigscience/mt0-large", "revision": REVISION})
    )
    assert any("an upper bound" in note for note in plan.notes)
    assert next(part.high for part in plan.training.parts if part.name == "activations") > 0


LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    **{"hidden_size": 8192, "num_hidden_layers": 40, "num_attention_heads": 64, "intermediate_size": 28672},
    **{"vocab_size": 32000, "tie_word_embeddings": False},
}
GPT2 = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    **{"n_embd": 8192, "n_layer": 60, "n_head": 64, "vocab_size": 32000},
}
OFFLOAD, PACK, AGAIN = "train.offload: true", "method.name: qlora", "train.gradient_checkpointing: true"


@pytest.mark.parametrize(
    ("sizes", "sections", "named", "unnamed"),
    [
        (LLAMA, {}, {OFFLOAD, PACK, AGAIN}, set()),
        (LLAMA, {"method": {"name": "lora", "r": 4, "init": "pissa"}}, {OFFLOAD}, {PACK}),
        (LLAMA, {"method": {"name": "p-tuning-v2", "tokens": 8}}, {OFFLOAD}, {PACK, AGAIN}),
        (LLAMA, {"method": {"name": "ia3"}}, {OFFLOAD}, {PACK}),
        (LLAMA, {"train": {"cache_frozen_layers": True}}, {PACK}, {OFFLOAD}),
        (GPT2, {"method": {"name": "bitfit"}}, set(), {OFFLOAD, PACK}),
        (GPT2, {}, {OFFLOAD}, {PACK}),
    ],
)
def test_advice_names_nothing_that_validation_refuses(
    sizes: Mapping[str, Any],
    sections: Mapping[str, Any],
    named: set[str],
    unnamed: set[str],
    make_spec: MakeSpec,
) -> None:
    train = {"precision": "fp32", "batch_size": 64} | sections.get("train", {})
    spec = make_spec(
        sections.get("method", {"name": "lora", "r": 4}),
        kind="text-generation",
        data={"template": "{text} {label}"},
        train=train,
        resources={"count": 2},
    )
    plan = plan_task(spec, base=BaseConfiguration(sizes, "somewhere"))
    assert plan.smallest_device is None
    changes = {advice.change for advice in plan.advice}
    assert named <= changes
    assert not unnamed & changes
    document = spec.model_dump(mode="json", exclude_defaults=True)
    for change in changes:
        if not change.startswith("all"):
            field, _, value = change.partition(",")[0].partition(": ")
            changed = apply_overrides(document, [f"{field}={value}"], where="")
            after, faults = inspect_task(changed)
            assert not faults
            assert after is not None
            assert not [*check_training(after, find_task_type(after), find_method(after))]
            assert after.train.batch_size % 2 == 0


def test_bf16_where_the_gpu_has_none(make_spec: MakeSpec) -> None:
    resources = {"count": 1, "node_selector": {"nvidia.com/gpu.product": "Tesla-T4"}}
    for precision, told in (("bf16", True), ("auto", False), ("fp32", False)):
        plan = plan_task(make_spec(train={"precision": precision}, resources=resources))
        assert any("T4 16 GB multiplies no bf16" in note for note in plan.notes) == told


def test_a_plan_as_json(make_spec: MakeSpec) -> None:
    document = json.loads(json.dumps(describe_plan(plan_task(make_spec()))))
    assert (
        document["parameters"]["trained"]
        == document["parameters"]["adapter"] + document["parameters"]["head"]
    )
    for name in ("training", "inference", "on_gpu"):
        estimate = document[name]
        assert estimate["low_bytes"] == sum(part["low_bytes"] for part in estimate["parts"])
        assert estimate["high_bytes"] == sum(part["high_bytes"] for part in estimate["parts"])
    names = {part["name"] for part in document["training"]["parts"]}
    assert names >= {"weights", "gradients", "optimiser", "activations", "logits"}
    assert document["smallest_device"] == "T4 16 GB"
    assert [device["verdict"] for device in document["devices"]] == ["fits"] * 7
