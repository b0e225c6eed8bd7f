"""The narrowed last layer: what a head reads, and all gradients, are those of the whole layer."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from lorry_components.methods import METHODS
from lorry_components.models.narrow_layer import narrow_last_layer
from lorry_components.models.pooled_model import PooledLoader
from lorry_components.tasks.resolution import resolve_task
from lorry_components.training.distributed.process_group import ALONE
from lorry_components.training.setup.model_setup import set_up
from lorry_registry.manifest import Pooling
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]
FAMILIES = ("bert", "camembert", "data2vec-text", "electra", "ernie", "roberta", "xlm-roberta")
OTHERS = ("distilbert", "gpt2", "deberta-v2", "modernbert", "roberta-prelayernorm", "xlm-roberta-xl")
# Those that need neither options nor a base in four bits.
BUILT = sorted(METHODS.keys() - {"peft", "qlora"})
SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}


def build_config(family: str, **further: Any) -> Any:
    return AutoConfig.for_model(family, **SIZES, **further)


def build(family: str, attention: str, *, is_pooled: bool = False, **further: Any) -> Any:
    torch.manual_seed(0)
    config = build_config(family, num_labels=3, attn_implementation=attention, **further)
    if is_pooled:
        return PooledLoader(Pooling(place="first")).from_config(config, attn_implementation=attention)
    auto: Any = AutoModelForSequenceClassification
    return auto.from_config(config, attn_implementation=attention)


def compute(model: Any, *, is_padded: bool) -> dict[str, torch.Tensor]:
    """Return logits, and the gradients of all that has one."""
    torch.manual_seed(1)
    tokens = torch.randint(5, 60, (4, 9))
    mask = torch.ones_like(tokens)
    if is_padded:
        mask[1, 4:] = mask[3, 7:] = 0
    found = model(input_ids=tokens, attention_mask=mask, labels=torch.tensor([0, 1, 2, 1]))
    found.loss.backward()
    gradients = {
        name: each.grad
        for name, each in model.named_parameters()
        if each.grad is not None and each.grad.any()
    }
    return {"logits": found.logits.detach(), **gradients}


def assert_same(model: Any, *, is_padded: bool) -> None:
    narrowed = copy.deepcopy(model)
    assert narrow_last_layer(narrowed)
    expected = compute(model, is_padded=is_padded)
    found = compute(narrowed, is_padded=is_padded)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_the_whole_layer(
    family: str, attention: str, is_padded: bool
) -> None:
    assert_same(build(family, attention).eval(), is_padded=is_padded)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_head_of_lorrys_own_reads_the_same(family: str) -> None:
    assert_same(build(family, "eager", is_pooled=True).eval(), is_padded=True)


def test_the_last_layer_computes_one_position() -> None:
    model = build("bert", "eager").eval()
    narrow_last_layer(model)
    shapes: list[tuple[int, ...]] = []
    for layer in model.bert.encoder.layer:
        dense = layer.output.dense
        dense.register_forward_hook(lambda _module, _args, output: shapes.append(tuple(output.shape)))
    compute(model, is_padded=False)
    assert shapes == [(4, 9, 16), (4, 1, 16)]


@pytest.mark.parametrize("family", OTHERS)
def test_other_architectures_are_left_as_they_are(family: str) -> None:
    model = build(family, "eager")
    before = [type(module) for module in model.modules()]
    assert not narrow_last_layer(model)
    assert [type(module) for module in model.modules()] == before


def test_a_bert_that_reads_from_left_to_right_is_left_as_it_is() -> None:
    assert not narrow_last_layer(build("bert", "eager", is_decoder=True))


@pytest.mark.parametrize("pooling", ["first", "transformers", "mean"])
@pytest.mark.parametrize("method", BUILT)
def test_a_task_whose_head_reads_the_first_position_is_narrowed(
    make_spec: MakeSpec, method: str, pooling: str
) -> None:
    model = set_up_for(make_spec("classification", method, head={"pooling": pooling}))
    names = {type(module).__name__ for module in model.modules()}
    assert ("BertCrossAttention" in names) == (pooling != "mean" and not METHODS[method].adds_positions)


@pytest.mark.parametrize("method", [name for name in BUILT if not METHODS[name].adds_positions])
def test_each_method_computes_the_same(
    make_spec: MakeSpec, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("classification", method, train={"precision": "fp32"}, head={"pooling": "first"})
    narrowed = set_up_for(spec)
    monkeypatch.setattr("lorry_components.training.setup.model_setup.narrow_last_layer", lambda _model: False)
    plain = set_up_for(spec)
    outputs = []
    for model in (narrowed.eval(), plain.eval()):
        torch.manual_seed(2)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    # Most adapters change nothing before they are trained.
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        outputs.append(compute(model, is_padded=True))
    assert outputs[0].keys() == outputs[1].keys()
    for name, tensor in outputs[1].items():
        torch.testing.assert_close(outputs[0][name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def set_up_for(spec: TaskSpec) -> Any:
    task = resolve_task(spec)
    task_type = task.task_type.settle(task.base.folder)
    labels = ["a", "b", "c"]
    return set_up(spec, task.base, task_type, task.build_method(), labels=labels, group=ALONE).model
