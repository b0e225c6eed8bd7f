"""Bases that differ from the usual: what they lack is refused by name, and the rest of them trains."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModel,
    BartConfig,
    DebertaV2Config,
    LlamaConfig,
    PreTrainedConfig,
    T5Config,
)

from lorry_components.inference import Predictor, assemble_adapter
from lorry_components.models.bases import resolve_base
from lorry_components.models.dropout_fields import check_dropouts, list_dropouts
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import prepare_data
from lorry_components.task_types import TASK_TYPES, InputForm
from lorry_components.tasks.base_checks import check_base, check_bases
from lorry_components.tasks.definition import find_method, find_task_type
from lorry_components.tasks.passed_checks import PassedChecks
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.errors import InvalidTaskError
from lorry_registry.tasks.task_spec import TaskSpec, TrainSpec

MakeSpec = Callable[..., TaskSpec]
MakeBase = Callable[..., Path]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "pad_token_id": 0,
}
T5 = T5Config(vocab_size=99, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
BART = BartConfig(vocab_size=99, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2)
LLAMA = LlamaConfig(**SIZES, vocab_size=99, num_key_value_heads=1)


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | fields), "utf-8")


def replace_model(folder: Path, config: PreTrainedConfig) -> Path:
    """Put another model beside a base's tokeniser."""
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def train(spec: TaskSpec, folder: Path) -> Predictor:
    prepare_data(resolve_task(spec), folder / "data")
    summary = finetune(
        resolve_task(spec), folder / "data", folder / "candidate", checkpoints=folder / "checkpoints"
    )
    return assemble_adapter(
        folder / "candidate" / "adapter",
        base=resolve_base(spec.base),
        task_type=find_task_type(spec),
        method=find_method(spec),
        labels=summary.labels,
    )


def refuse(spec: TaskSpec, folder: Path) -> list[str]:
    with pytest.raises(InvalidTaskError) as caught:
        check_base(spec, folder)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize("max_length", [32, 600])
def test_a_family_with_an_attention_of_its_own_trains(
    make_spec: MakeSpec, make_base: MakeBase, max_length: int, tmp_path: Path
) -> None:
    config = DebertaV2Config(
        **SIZES,
        vocab_size=200,
        max_position_embeddings=600,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=8,
    )
    folder = replace_model(make_base(), config)
    change_config(folder, tokenizer_class=None)
    method = {"name": "lora", "r": 2, "targets": ["query_proj"]}
    spec = make_spec(method=method, base=str(folder), data={"max_length": max_length}, train={"epochs": 1})
    (found,) = train(spec, tmp_path).predict([{"text": "the film was lovely"}])
    assert np.isfinite(found["value"])


def test_a_base_that_is_stored_in_half_precision_is_loaded_in_full(make_base: MakeBase) -> None:
    folder = make_base()
    AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    model, _ = TASK_TYPES["regression"](InputForm(max_length=32)).load_model(folder, None)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("padding", [None, 7])
def test_a_decoder_looks_at_the_last_word_whatever_its_configuration_calls_padding(
    make_spec: MakeSpec, make_base: MakeBase, padding: int | None, tmp_path: Path
) -> None:
    folder = make_base("base", "gpt2")
    change_config(folder, pad_token_id=padding, eos_token_id=9)
    method = {"name": "lora", "r": 2, "targets": ["c_attn"]}
    predictor = train(make_spec(method=method, base=str(folder), train={"epochs": 1}), tmp_path)
    short, long = {"text": "a lovely film"}, {"text": "the plot was dull and the cast was boring and bad"}
    (alone,) = predictor.predict([short])
    beside, _ = predictor.predict([short, long])
    assert beside["value"] == pytest.approx(alone["value"], abs=1e-5)


@pytest.mark.parametrize("config", [T5, BART], ids=["t5", "bart"])
def test_two_stacks_classify_unless_soft_tokens_stand_between_words(
    make_spec: MakeSpec, make_base: MakeBase, config: PreTrainedConfig
) -> None:
    folder = replace_model(make_base(), config)
    targets = ["q"] if config is T5 else ["q_proj"]
    check_base(
        make_spec("classification", {"name": "lora", "r": 2, "targets": targets}, base=str(folder)), folder
    )
    between = make_spec(
        "classification", {"name": "p-tuning", "template": "[P] {text} [P]"}, base=str(folder)
    )
    assert any("method.template" in fault for fault in refuse(between, folder))


def test_dropouts_that_a_base_lacks_are_refused() -> None:
    both = TrainSpec(hidden_dropout=0.1, attention_dropout=0.1)
    assert [fault.where for fault in check_dropouts(both, LLAMA)] == ["train.hidden_dropout"]
    assert [fault.where for fault in check_dropouts(both, T5)] == ["train.attention_dropout"]
    assert not list(check_dropouts(both, BART))
    assert not list(check_dropouts(TrainSpec(hidden_dropout=0.0), LLAMA))


def test_dropouts_go_by_the_names_of_the_family() -> None:
    both = TrainSpec(hidden_dropout=0.2, attention_dropout=0.1)
    assert list_dropouts(both, LLAMA) == {"attention_dropout": 0.1}
    assert list_dropouts(both, T5) == {"dropout_rate": 0.2}
    assert list_dropouts(both, BART) == {"attention_dropout": 0.1, "dropout": 0.2}


@pytest.mark.parametrize("option", ["offload", "cache_frozen_layers"])
def test_what_goes_block_by_block_needs_blocks(make_spec: MakeSpec, make_base: MakeBase, option: str) -> None:
    config = AlbertConfig(**SIZES, vocab_size=99, embedding_size=16, max_position_embeddings=64)
    folder = replace_model(make_base(), config)
    spec = make_spec(base=str(folder), train={option: True})
    assert any(f"train.{option}" in fault and "is not known" in fault for fault in refuse(spec, folder))


@pytest.mark.parametrize(
    "fields",
    [{"hidden_size": "abc"}, {"hidden_size": 65, "num_attention_heads": 12}],
    ids=str,
)
def test_a_configuration_that_contradicts_itself_is_a_fault_of_the_task(
    make_spec: MakeSpec, make_base: MakeBase, fields: dict[str, Any]
) -> None:
    folder = make_base()
    change_config(folder, **fields)
    with pytest.raises(InvalidTaskError) as caught:
        check_bases([make_spec(base=str(folder))], PassedChecks(Path("nowhere") / "a" / "b"))
    (fault,) = caught.value.faults
    assert fault.where == "base.model"
    assert "transformers cannot" in fault.what
    assert "\n" not in fault.what
