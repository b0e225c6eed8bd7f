"""What cannot work is refused from the base's configuration alone, with the reason and what would work."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AlbertConfig, MixtralConfig, PreTrainedConfig

from lorry_components.methods import METHODS
from lorry_components.tasks.base_checks import check_base, check_bases
from lorry_components.tasks.definition import check_sections
from lorry_components.tasks.passed_checks import PassedChecks
from lorry_registry.errors import Fault, InvalidTaskError, MissingExtraError, TrainingError
from lorry_registry.tasks.task_sections import TaskSections
from lorry_registry.tasks.task_spec import MethodSpec, TaskSpec

Configure = Callable[[str], PreTrainedConfig]
MakeCase = Callable[..., Any]


@pytest.mark.parametrize(
    ("name", "options", "style", "where", "what"),
    [
        ("p-tuning-v2", {}, "deberta-v2", "name", "DebertaV2Model takes no keys and values from outside"),
        ("p-tuning-v2", {}, "modernbert", "name", "ModernBertModel takes no keys and values from outside"),
        ("p-tuning-v2", {}, "t5", "name", "one stack of blocks"),
        ("prelayer", {}, "t5", "name", "one stack of blocks"),
        ("bitfit", {}, "llama", "name", "LlamaModel has no biases"),
        ("bitfit", {}, "t5", "name", "T5Model has no biases"),
        ("lora", {"targets": ["valeu"]}, "bert", "targets", "did you mean 'value'?"),
        ("lora", {"targets": ["query", "classifier"]}, "bert", "targets", "is called 'classifier'"),
        ("lora", {}, "distilbert", "targets", "choose targets from"),
        ("lora", {"r": 33}, "bert", "r", "rank 33 is above the rank that 'query' can have, 32"),
        ("lora", {"r": 17}, "llama", "r", "rank 17 is above the rank that 'v_proj' can have, 16"),
        ("lora", {"layers": 3}, "bert", "layers", "3 blocks are more than the 2"),
        ("lora", {"init": "olora", "r": 2}, "gpt2", "init", "the wrong way round"),
        ("adalora", {"r": 40, "target_r": 8}, "bert", "r", "rank 40 is above"),
        ("vera", {"layers": 9}, "gpt2", "layers", "9 blocks are more than the 2"),
        ("qlora", {}, "gpt2", "targets", "bitsandbytes packs no Conv1D"),
        ("qlora", {"init": "pissa"}, "bert", "init", "packed weights"),
        ("ft-top", {"layers": 3}, "bert", "layers", "3 blocks are more than the 2"),
        ("adapter-d", {"drop": 2}, "bert", "drop", "leaving out 2 leaves none"),
        ("adapter-h", {"size": 33}, "gpt2", "size", "wider than the base, 32"),
        ("peft", {"type": "MISS", "r": 64}, "bert", "", "PEFT refuses MISS here"),
        ("peft", {"type": "TRAINABLE_TOKENS", "token_indices": [5]}, "bert", "type", "cannot store the head"),
    ],
)
def test_what_does_not_fit_a_base(
    tiny_config: Configure, name: str, options: dict[str, Any], style: str, where: str, what: str
) -> None:
    faults = list(METHODS[name](options, "SEQ_CLS").check_base(tiny_config(style)))
    assert any(fault.where == f"method.{where}".rstrip(".") and what in fault.advice for fault in faults), (
        faults
    )


@pytest.mark.parametrize("name", METHODS)
def test_what_fits_has_no_faults(tiny_config: Configure, name: str) -> None:
    options = {"lora": {"r": 4}, "peft": {"type": "LOHA"}, "adalora": {"r": 4, "target_r": 2}}.get(name, {})
    assert list(METHODS[name](options, "SEQ_CLS").check_base(tiny_config("bert"))) == []


@pytest.mark.parametrize("name", ["prompt-tuning", "p-tuning", "prelayer"])
def test_soft_tokens_need_text(tiny_config: Configure, name: str) -> None:
    (fault,) = METHODS[name]({}, None).check_base(tiny_config("gpt2"))
    assert "needs a task type that reads text" in fault.what
    for task_type in ("CAUSAL_LM", "SEQ_CLS", "FEATURE_EXTRACTION"):
        assert not list(METHODS[name]({}, task_type).check_base(tiny_config("gpt2")))


@pytest.mark.parametrize("name", ["adapter-h", "ft-top", "prelayer"])
@pytest.mark.parametrize(
    "config",
    [
        AlbertConfig(hidden_size=32, num_attention_heads=2, intermediate_size=64, vocab_size=99),
        MixtralConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, vocab_size=99
        ),
    ],
    ids=["shared-layers", "mixture-of-experts"],
)
def test_blocks_that_are_not_known(config: PreTrainedConfig, name: str) -> None:
    faults = list(METHODS[name]({}, "FEATURE_EXTRACTION").check_base(config))
    assert [fault.where for fault in faults] == ["base.model"]
    assert "is not known" in faults[0].what
    assert "choose a method that needs no blocks" in faults[0].remedy


def test_adapting_refuses_too(make_case: MakeCase) -> None:
    for name, style in [("p-tuning-v2", "deberta-v2"), ("bitfit", "llama"), ("prelayer", "t5")]:
        with pytest.raises(TrainingError) as caught:
            make_case(name, style)
        assert caught.value.where == "method.name"
        assert caught.value.todo


def test_qlora_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match="needs bitsandbytes") as caught:
        METHODS["qlora"]({}).list_load_options()
    assert "lorry[quantization]" in caught.value.todo


# Options alone


def list_faults(section: dict[str, Any]) -> list[Fault]:
    """What a method section has of faults, whatever the task type and the base are."""
    method = MethodSpec.model_validate(section)
    return list(check_sections(TaskSections(None, None, method, None, None, None)))


@pytest.mark.parametrize(
    ("section", "where", "what"),
    [
        ({"name": "adapter-h", "size": 4, "reduction": 2}, "method", "'reduction' or 'size', not both"),
        ({"name": "adapter-p", "drop": 4}, "method.drop", "adapter-p has no option 'drop'"),
        ({"name": "lora", "dora": True, "init": "pissa"}, "method", "leave one of the two out"),
        ({"name": "lora", "init": "orthogonal", "r": 3}, "method", "an even rank"),
        ({"name": "lora", "targets": "query"}, "method.targets", "list"),
        ({"name": "adalora", "target_r": 20}, "method", "'target_r' 20 is not below 'r' 12"),
        ({"name": "adalora", "warmup": 0.6, "final": 0.5}, "method", "leave no steps"),
        ({"name": "ia3", "targets": ["key"]}, "method", "or neither"),
        ({"name": "ia3", "targets": ["key"], "feedforward": ["dense"]}, "method", "not among the targets"),
        ({"name": "p-tuning-v2", "hidden_size": 8}, "method", "write projection: true"),
        ({"name": "peft"}, "method.type", "is missing"),
        ({"name": "peft", "type": "ADAPTION_PROMPT"}, "method.type", "cannot be switched off"),
        ({"name": "peft", "type": "SHADOW", "shadow_model": "a/b"}, "method.shadow_model", "no option"),
        ({"name": "peft", "type": "MIS"}, "method.type", "did you mean 'MISS'?"),
        ({"name": "peft", "type": "miss", "rr": 3}, "method.rr", "did you mean 'r'?"),
        ({"name": "peft", "type": "MISS", "r": "eight"}, "method.r", "valid integer"),
        ({"name": "peft", "type": "MISS", "task_type": "X"}, "method.task_type", "has no option"),
        (
            {"name": "peft", "type": "LORA", "init_lora_weights": "pissa"},
            "method.init_lora_weights",
            "name: lora",
        ),
        ({"name": "peft", "type": "ADALORA"}, "method.type", "write name: adalora"),
        ({"name": "peft", "type": "PROMPT_TUNING"}, "method.type", "write name: prompt-tuning"),
        ({"name": "p-tuning", "template": "{text} [P]", "tokens": 3}, "method", "leave 'tokens' out"),
        ({"name": "p-tuning", "template": "{text} is in"}, "method.template", "has no soft token"),
        ({"name": "p-tuning", "template": "[P] {txt}"}, "method.template", "there is no {txt}"),
        ({"name": "p-tuning", "template": "[P] {text"}, "method.template", "expected '}'"),
        ({"name": "p-tuning", "template": "[P]*0 {text}"}, "method.template", "is no soft token"),
        ({"name": "p-tuning", "template": "[P]*4097 {text}"}, "method.template", "more than 4096"),
        ({"name": "peft", "type": "XLORA"}, "method.type", "is not possible here"),
    ],
)
def test_options_that_make_no_sense(section: dict[str, Any], where: str, what: str) -> None:
    faults = list_faults(section)
    assert [fault.where for fault in faults] == [where]
    assert what in faults[0].advice


# Tasks


def make_spec(base: Path | str, method: dict[str, Any], max_length: int = 16) -> TaskSpec:
    return TaskSpec.model_validate(
        {
            "name": "tiny",
            "kind": "text-classification",
            "base": {"model": str(base)},
            "data": {"source": "rows.jsonl", "max_length": max_length},
            "method": method,
        }
    )


def test_a_task_is_refused_by_its_bases_configuration(tiny_config: Configure, tmp_path: Path) -> None:
    # No weights: the configuration is enough.
    (tmp_path / "config.json").write_text(json.dumps(tiny_config("deberta-v2").to_dict()))
    check_base(make_spec(tmp_path, {"name": "adapter-h"}), tmp_path)
    refused = make_spec(tmp_path, {"name": "p-tuning-v2"})
    passed = PassedChecks(tmp_path.with_name("passed"))
    with pytest.raises(InvalidTaskError, match="takes no keys and values") as caught:
        check_bases([refused], passed)
    assert [fault.where for fault in caught.value.faults] == ["method.name"]
    with pytest.raises(InvalidTaskError, match="2 tasks"):
        check_bases([refused, refused], passed)


def test_soft_tokens_need_positions(tiny_config: Configure, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny_config("roberta").to_dict()))
    # Of 66 positions RoBERTa leaves two to padding.
    check_base(make_spec(tmp_path, {"name": "p-tuning-v2", "tokens": 4}, max_length=60), tmp_path)
    with pytest.raises(InvalidTaskError, match="more than the 64 positions") as caught:
        check_base(make_spec(tmp_path, {"name": "p-tuning-v2", "tokens": 5}, max_length=60), tmp_path)
    assert [fault.where for fault in caught.value.faults] == ["data.max_length"]


def test_a_base_that_is_elsewhere_is_left_to_the_training(tmp_path: Path) -> None:
    method = {"name": "p-tuning-v2"}
    check_bases(
        [make_spec(tmp_path / "nowhere", method), make_spec("package:no_such_package/model", method)],
        PassedChecks(Path("nowhere") / "a" / "b"),
    )
