"""The card says what a person needs to know to use an adapter without Lorry, where it applies, and it is
so."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    GPT2ForSequenceClassification,
    PreTrainedConfig,
)

from lorry_components.methods import METHODS
from lorry_components.methods.peft.base import PeftMethod
from lorry_components.models.model_family import is_decoder_class
from lorry_components.steps.register.client_notes import list_client_notes
from lorry_components.steps.register.model_card import render_card
from lorry_registry.manifest import Manifest, Pooling

from fixtures.adapters import write_adapter

MakeManifest = Callable[..., Manifest]
LORA: dict[str, Any] = {"peft_type": "LORA", "r": 8, "modules_to_save": ["classifier"]}
PLAIN: dict[str, Any] = {"peft_type": "LORA", "r": 8}
HEAD_BASE = {"architecture": "BertForSequenceClassification"}


@pytest.fixture
def make_manifest(tmp_path: Path) -> MakeManifest:
    manifest = write_adapter(tmp_path / "adapter").manifest

    def make(kind: str, architecture: str = "", **fields: Any) -> Manifest:
        architecture = architecture or ("LlamaForCausalLM" if kind == "text-generation" else "BertModel")
        base = manifest.base.model_copy(update={"architecture": architecture})
        return manifest.model_copy(update={"kind": kind, "base": base, "labels": None, **fields})

    return make


@pytest.mark.parametrize(
    ("kind", "fields", "config", "words"),
    [
        (
            "text-classification",
            {"labels": ("a", "b", "c")},
            LORA,
            ["num_labels=3", "on a base that has one"],
        ),
        ("regression", HEAD_BASE, LORA, ["num_labels=1", "from version 0.33 on"]),
        ("regression", {"head": Pooling(place="mean")} | HEAD_BASE, LORA, ["its head reads the mean"]),
        ("question-answering", {}, LORA, ["token_type_ids", "no LoRA for tasks of kind question-answering"]),
        ("question-answering", {"architecture": "RobertaModel"}, LORA, ["no LoRA for tasks of kind"]),
        ("question-answering", {}, {"peft_type": "PREFIX_TUNING"}, []),
        ("regression", {}, {"peft_type": "PROMPT_TUNING"}, ["num_labels=1"]),
        (
            "regression",
            {"architecture": "LlamaForCausalLM"},
            {"peft_type": "PROMPT_TUNING"},
            ["num_labels=1", "one text at a time"],
        ),
        ("regression", {"architecture": "GPT2Model"}, {"peft_type": "PREFIX_TUNING"}, ["num_labels=1"]),
        ("text-generation", {}, PLAIN, []),
        ("text-generation", {}, PLAIN | {"use_dora": True}, ["it is a DoRA"]),
        ("text-generation", {}, PLAIN | {"use_rslora": True}, ["SGLang ignores it"]),
        ("text-generation", {}, PLAIN | {"r": 24}, ["Its rank is 24: vLLM needs `--max-lora-rank 32`"]),
        ("text-generation", {}, PLAIN | {"r": 600}, ["its rank is 600, and vLLM serves none above 512"]),
        (
            "text-generation",
            {"recipe": {"method": {"name": "lora", "r": 16, "init": "pissa"}}},
            PLAIN | {"r": 32},
            ["Its rank is 32, twice the 16 of its training"],
        ),
        ("image-generation", {}, PLAIN | {"use_dora": True}, []),
        ("text-classification", {}, {"lorry_method": "bitfit"}, ["PEFT cannot read it"]),
        ("text-generation", {}, {"peft_type": "LORRY_PRELAYER"}, ["PEFT cannot read it"]),
    ],
    ids=str,
)
def test_what_applies_is_said_and_nothing_else(
    make_manifest: MakeManifest,
    kind: str,
    fields: dict[str, Any],
    config: dict[str, Any],
    words: list[str],
) -> None:
    notes = list_client_notes(make_manifest(kind, **fields), config)
    assert len(notes) == len(words)
    for note, word in zip(notes, words, strict=True):
        assert word in note


def test_the_library_of_a_card_is_one_that_can_read_it(make_manifest: MakeManifest) -> None:
    manifest = make_manifest("text-classification", labels=("a", "b"))
    assert "library_name: peft\n" in render_card(manifest, LORA)
    own = render_card(manifest, {"lorry_method": "bitfit"})
    assert "library_name: lorry\n" in own
    heading, note = own.splitlines()[-3::2]
    assert heading == "## Without Lorry"
    assert note == "- PEFT cannot read it: `lora` is stored in a layout of Lorry's own."
    assert "Without Lorry" not in render_card(make_manifest("text-generation"), PLAIN)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("GPT2LMHeadModel", True), ("LlamaModel", True), ("BertModel", False), ("T5Model", False), ("X", False)],
)
def test_decoders_are_known_by_their_class(architecture: str, expected: bool) -> None:
    assert is_decoder_class(architecture) is expected


# That it is so in the PEFT that is installed


def test_peft_drops_the_token_types_of_questions(
    tiny_config: Callable[[str], PreTrainedConfig],
) -> None:
    torch.manual_seed(0)
    config = LoraConfig(task_type="QUESTION_ANS", init_lora_weights=False, modules_to_save=["qa_outputs"])
    model: Any = get_peft_model(BertForQuestionAnswering(tiny_config("bert")), config).eval()
    words = torch.tensor([[5, 6, 7, 8]])
    types = torch.tensor([[0, 0, 1, 1]])
    with torch.no_grad():
        wrapped = model(input_ids=words, token_type_ids=types).start_logits
        assert torch.equal(wrapped, model(input_ids=words).start_logits)
        inside = model.get_base_model()(input_ids=words, token_type_ids=types).start_logits
        merged = model.merge_and_unload()(input_ids=words, token_type_ids=types).start_logits
    assert not torch.allclose(wrapped, inside, atol=1e-4)
    torch.testing.assert_close(inside, merged, rtol=0, atol=1e-5)


def test_peft_reads_padding_behind_soft_tokens_on_a_decoder(
    tiny_config: Callable[[str], PreTrainedConfig],
) -> None:
    torch.manual_seed(0)
    config = PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)
    model: Any = get_peft_model(GPT2ForSequenceClassification(tiny_config("gpt2")), config).eval()
    words = torch.tensor([[5, 6, 0, 0]])
    mask = (words > 0).long()
    with torch.no_grad():
        padded = model(input_ids=words, attention_mask=mask).logits
        alone = model(input_ids=words[:, :2], attention_mask=mask[:, :2]).logits
    assert not torch.allclose(padded, alone, atol=1e-4)


def test_a_head_of_three_outputs_needs_to_be_asked_for(
    tiny_config: Callable[[str], PreTrainedConfig], tmp_path: Path
) -> None:
    from peft import PeftModel

    def build(outputs: int) -> BertForSequenceClassification:
        config = tiny_config("bert")
        config.num_labels = outputs
        return BertForSequenceClassification(config)

    lora = LoraConfig(task_type="SEQ_CLS", modules_to_save=["classifier"])
    get_peft_model(build(3), lora).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(build(2), tmp_path)
    assert PeftModel.from_pretrained(build(3), tmp_path) is not None


def test_the_page_about_peft_promises_no_method_that_peft_cannot_read() -> None:
    page = (Path(__file__).parents[5] / "docs/peft.md").read_text("utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    loaded = [name for row in rows if "loads it" in row[2] for name in re.findall(r"`([a-z0-9-]+)`", row[1])]
    refused = [
        name for row in rows if row[2].startswith(" no:") for name in re.findall(r"`([a-z0-9-]+)`", row[1])
    ]
    assert loaded
    assert all(issubclass(METHODS[name], PeftMethod) for name in loaded)
    # p-tuning is in both rows: with soft tokens between words its layout is Lorry's own.
    assert {*loaded, *refused} == set(METHODS)
