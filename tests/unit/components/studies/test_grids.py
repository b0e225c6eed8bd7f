"""How grids of options, targets and prompts are laid out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    BloomConfig,
    DebertaV2Config,
    DistilBertConfig,
    FalconConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    ModernBertConfig,
    OPTConfig,
    PhiConfig,
    PretrainedConfig,
    T5Config,
)

from lorry_components.methods.peft.targets import list_linear, match_targets
from lorry_components.studies.grids import Comparison, lay_out_comparison
from lorry_components.studies.prompt_grid import draft_prompts, read_prompts
from lorry_components.studies.target_grid import LETTERS, find_projections, lay_out_targets
from lorry_components.studies.variants import Draft, MethodChoice, TaskDocument
from lorry_components.tasks.definition import find_method
from lorry_registry.errors import InvalidTaskError, TrainingError

TaskFile = Callable[..., Path]
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 60,
}


def build(config: PretrainedConfig) -> torch.nn.Module:
    with torch.device("meta"):
        model: torch.nn.Module = AutoModel.from_config(config)
    return model


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (BertConfig(**SMALL), ("query", "key", "value", "attention.output.dense")),
        (DebertaV2Config(**SMALL), ("query_proj", "key_proj", "value_proj", "attention.output.dense")),
        (DistilBertConfig(dim=32, n_layers=2, n_heads=2), ("q_lin", "k_lin", "v_lin", "out_lin")),
        (ModernBertConfig(**SMALL, pad_token_id=0), ("Wqkv", "Wqkv", "Wqkv", "attn.Wo")),
        (GPT2Config(n_embd=32, n_layer=2, n_head=2), ("c_attn", "c_attn", "c_attn", "attn.c_proj")),
        (GPTNeoXConfig(**SMALL), ("query_key_value",) * 3 + ("dense",)),
        (BloomConfig(hidden_size=32, n_layer=2, n_head=2), ("query_key_value",) * 3 + ("dense",)),
        (FalconConfig(**SMALL), ("query_key_value",) * 3 + ("dense",)),
        (LlamaConfig(**SMALL), ("q_proj", "k_proj", "v_proj", "o_proj")),
        (Gemma3TextConfig(**SMALL, head_dim=16), ("q_proj", "k_proj", "v_proj", "o_proj")),
        (PhiConfig(**SMALL), ("q_proj", "k_proj", "v_proj", "dense")),
        (OPTConfig(**SMALL), ("q_proj", "k_proj", "v_proj", "out_proj")),
        (
            T5Config(d_model=32, d_kv=16, num_layers=2, num_heads=2),
            ("SelfAttention.q", "SelfAttention.k", "SelfAttention.v", "SelfAttention.o"),
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PretrainedConfig) else "",
)
def test_projections_are_found_by_structure(config: PretrainedConfig, names: tuple[str, ...]) -> None:
    model = build(config)
    projections = find_projections(model)
    assert tuple(projections.names[letter] for letter in LETTERS) == names
    # Each target means attention's own matrices, and nothing of the MLP.
    for name in names:
        for found in match_targets(list_linear(model), [name]):
            assert "mlp" not in found
            assert "intermediate" not in found


def test_an_unknown_base_is_refused() -> None:
    with pytest.raises(TrainingError, match="not known"):
        find_projections(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_a_rank_takes_inputs_and_outputs_of_each_matrix() -> None:
    config = LlamaConfig(**SMALL, num_key_value_heads=1, head_dim=16)
    projections = find_projections(build(config))
    # Two layers; keys and values have one head of 16.
    assert projections.count_unit(("q",)) == 2 * (32 + 32)
    assert projections.count_unit(("k",)) == 2 * (32 + 16)
    assert projections.count_unit(LETTERS) == 2 * (2 * 64 + 2 * 48)


ALL = "targets=q,k,v,o,qk,qv,qkvo"


@pytest.fixture
def lay_out_grid(task_file: TaskFile) -> Callable[..., Comparison]:
    def lay_out(
        grid: str, methods: str | None = None, overrides: tuple[str, ...] = (), **sections: Any
    ) -> Comparison:
        return lay_out_comparison(TaskDocument.load(task_file(**sections), overrides), methods, grid=grid)

    return lay_out


def list_faults(error: pytest.ExceptionInfo[InvalidTaskError]) -> list[str]:
    return [f"{fault.where}: {fault.advice}" for fault in error.value.faults]


def test_targets_share_one_budget(lay_out_grid: Callable[..., Comparison]) -> None:
    comparison = lay_out_grid(ALL)
    # r=4 on query and value of two layers of 32.
    assert comparison.notes == (f"each lora trains at most {4 * 2 * 2 * 64:,} parameters",)
    assert {variant.label: variant.facts["rank"] for variant in comparison.variants} == {
        "lora targets=q r=8": 8,
        "lora targets=k r=8": 8,
        "lora targets=v r=8": 8,
        "lora targets=o r=8": 8,
        "lora targets=qk r=4": 4,
        "lora targets=qv r=4": 4,
        "lora targets=qkvo r=2": 2,
    }
    assert comparison.grid is not None
    assert comparison.grid.values == ("q", "k", "v", "o", "qk", "qv", "qkvo")
    assert not comparison.grid.is_numeric
    assert comparison.variants[3].spec.method.options == {"r": 8, "targets": ["attention.output.dense"]}


def test_a_budget_that_does_not_divide_is_not_exceeded(lay_out_grid: Callable[..., Comparison]) -> None:
    comparison = lay_out_grid("targets=qv,qkv", overrides=("method.r=2",))
    assert [variant.facts["rank"] for variant in comparison.variants] == [2, 1]


def test_a_budget_below_one_rank_is_refused(lay_out_grid: Callable[..., Comparison]) -> None:
    with pytest.raises(InvalidTaskError) as error:
        lay_out_grid("targets=q,qkvo", overrides=("method.r=1",))
    assert list_faults(error) == [
        "--grid targets=qkvo: a rank of 1 takes 512 parameters, more than the 256 of the method without the "
        "grid; give it a higher rank: --set method.r=N"
    ]


def test_a_section_that_adapts_nothing_gives_no_budget(lay_out_grid: Callable[..., Comparison]) -> None:
    with pytest.raises(InvalidTaskError) as error:
        lay_out_grid("targets=q", method={"name": "lora", "targets": ["nope"]})
    assert any("there is no budget to share" in fault for fault in list_faults(error))


def test_a_grid_stays_in_the_layers_of_its_section(lay_out_grid: Callable[..., Comparison]) -> None:
    method = {"name": "lora", "r": 4, "targets": ["query", "value"], "layers": 1}
    (variant,) = lay_out_grid("targets=q", method=method).variants
    assert variant.spec.method.options == {"r": 8, "targets": ["query"], "layers": 1}


def test_another_method_is_replaced_by_loras_defaults(lay_out_grid: Callable[..., Comparison]) -> None:
    for grid in ("targets=q", "r=1"):
        (variant,) = lay_out_grid(grid, method={"name": "bitfit"}).variants
        assert variant.spec.method.name == "lora"
        assert variant.spec.train.learning_rate is None


def test_one_matrix_cannot_be_taken_apart() -> None:
    draft = Draft("lora", {"name": "lora", "r": 4})
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2)
    _, faults, _ = lay_out_targets(config, draft, [("q", "v"), ("o",)])
    assert [fault.where for fault in faults] == ["--grid targets=qv"]
    assert faults[0].what.startswith("W_q, W_k, W_v are one matrix of GPT2Model (c_attn)")
    drafts, faults, _ = lay_out_targets(config, draft, [("q", "k", "v"), ("o",)])
    assert not faults
    assert [each.facts["grid"] for each in drafts] == ["qkv", "o"]


def test_letters_are_targets_of_lora_alone(lay_out_grid: Callable[..., Comparison]) -> None:
    with pytest.raises(InvalidTaskError) as error:
        lay_out_grid("targets=q", "bitfit")
    assert list_faults(error)[0].startswith("--methods bitfit: letters stand for targets of LoRA alone")
    # Names of modules are an option like any other.
    comparison = lay_out_grid("targets=[query],[key]", "vera,lora:r=2")
    assert [variant.label for variant in comparison.variants] == [
        "vera targets=query",
        "lora r=2 targets=query",
        "vera targets=key",
        "lora r=2 targets=key",
    ]


def test_faults_of_the_section_are_listed() -> None:
    draft = Draft("lora", {"name": "lora", "r": "many"})
    _, faults, _ = lay_out_targets(BertConfig(**SMALL), draft, [("q",)])
    assert [fault.where for fault in faults] == ["method.r"]


@pytest.mark.parametrize("given", [{}, {"alpha": 5}])
def test_ranks_keep_alpha(
    lay_out_grid: Callable[..., Comparison], tiny_bert: Path, given: dict[str, int]
) -> None:
    method = {"name": "lora", "r": 8, "targets": ["query"], **given}
    scales = []
    for variant in lay_out_grid("r=1,4,8", method=method).variants:
        adapted: Any = find_method(variant.spec).adapt(AutoModel.from_pretrained(tiny_bert), frozenset())
        found = [getattr(module, "scaling", None) for module in adapted.modules()]
        scales.append({scaling["default"] for scaling in found if isinstance(scaling, dict)})
    alpha = given.get("alpha", 16)
    assert scales == [{alpha / 1}, {alpha / 4}, {alpha / 8}]


def test_the_lengths_of_dora_are_in_the_budget(
    lay_out_grid: Callable[..., Comparison], tiny_bert: Path
) -> None:
    method = {"name": "lora", "r": 4, "dora": True, "targets": ["query", "value"]}
    comparison = lay_out_grid(ALL, method=method)
    # Beside r=4 on query and value of two layers of 32: a length for each of 32 columns.
    budget = 4 * 2 * 2 * 64 + 2 * 2 * 32
    assert comparison.notes == (f"each lora trains at most {budget:,} parameters",)
    for variant in comparison.variants:
        model: Any = AutoModel.from_pretrained(tiny_bert)
        method_ = find_method(variant.spec)
        trained = method_.count_parameters(method_.adapt(model, frozenset()), frozenset()).adapter
        assert budget - 256 * len(variant.facts["grid"]) < trained <= budget


def test_options_of_the_command_line_reach_grids(lay_out_grid: Callable[..., Comparison]) -> None:
    for grid in ("r=1,2", ALL):
        comparison = lay_out_grid(grid, overrides=("method.dropout=0.5",), method={"name": "bitfit"})
        assert {variant.spec.method.options["dropout"] for variant in comparison.variants} == {0.5}


def test_a_grid_of_numbers(lay_out_grid: Callable[..., Comparison]) -> None:
    comparison = lay_out_grid("train.learning_rate=1e-3,1e-2", "lora,bitfit")
    assert comparison.grid is not None
    assert comparison.grid.is_numeric
    assert [(each.label, each.spec.train.learning_rate) for each in comparison.variants] == [
        ("lora learning_rate=1e-3", 0.001),
        ("bitfit learning_rate=1e-3", 0.001),
        ("lora learning_rate=1e-2", 0.01),
        ("bitfit learning_rate=1e-2", 0.01),
    ]


@pytest.mark.parametrize(
    ("grid", "methods", "overrides", "fault"),
    [
        ("r", None, (), "--grid r: is not of the form NAME=VALUE,VALUE; write r=1,2,4"),
        ("r=1,,2", None, (), "--grid r=1,,2: is not of the form NAME=VALUE,VALUE; write r=1,2,4"),
        ("r=1,1", None, (), "lora r=1: 2 variants would have this name; name each once"),
        ("targets=qv,vq", None, (), "lora targets=qv r=4: 2 variants would have this name; name each once"),
        ("r=1", "lora:r=2", (), "--methods lora r=2: r is what --grid varies; give it in one of them"),
        ("r=1", None, ("method.r=2",), "--set method.r: is what this compares; give its values in --grid"),
        ("r={", None, (), "--grid: r: '{' is not a YAML value"),
    ],
)
def test_grids_that_cannot_be(
    lay_out_grid: Callable[..., Comparison],
    grid: str,
    methods: str | None,
    overrides: tuple[str, ...],
    fault: str,
) -> None:
    with pytest.raises(InvalidTaskError) as error:
        lay_out_grid(grid, methods, overrides)
    assert fault in list_faults(error)


def test_wordings_are_laid_out_with_and_without(task_file: TaskFile) -> None:
    task = TaskDocument.load(task_file())
    choices = [MethodChoice("p-tuning", {"tokens": 5})]
    drafts = draft_prompts(task, ["{text} a", "{text} b"], choices)
    assert [(draft.label, draft.is_trained, draft.data["template"]) for draft in drafts] == [
        ("1 untrained", False, "{text} a"),
        ("1 p-tuning tokens=5", True, "{text} a"),
        ("2 untrained", False, "{text} b"),
        ("2 p-tuning tokens=5", True, "{text} b"),
    ]
    assert drafts[1].method == {"name": "p-tuning", "tokens": 5}


def test_a_wording_may_say_where_soft_tokens_stand(task_file: TaskFile) -> None:
    own = {"name": "p-tuning", "tokens": 9, "template": "[P] {text} of the file {label}"}
    task = TaskDocument.load(task_file(method=own))
    wordings = ["[P]*3 {text} [P] is in [P]*2 {label} .", "{text} lies in {label}"]
    drafts = draft_prompts(task, wordings, [MethodChoice("p-tuning")])
    assert [draft.data["template"] for draft in drafts] == [
        *["{text} is in {label} ."] * 2,
        *["{text} lies in {label}"] * 2,
    ]
    assert [draft.method for draft in drafts if draft.is_trained] == [
        {"name": "p-tuning", "template": wordings[0]},
        {"name": "p-tuning", "tokens": 9},
    ]


def test_only_methods_with_a_template_are_told_where_soft_tokens_stand(task_file: TaskFile) -> None:
    task = TaskDocument.load(task_file(method={"name": "bitfit"}))
    choices = [MethodChoice("bitfit"), MethodChoice("p-tuning"), MethodChoice("prompt-tuning")]
    drafts = draft_prompts(task, ["[P] {text}"], choices)
    assert [draft.method for draft in drafts if draft.is_trained] == [
        {"name": "bitfit"},
        {"name": "p-tuning", "template": "[P] {text}"},
        {"name": "prompt-tuning"},
    ]


def test_prompts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "wordings.txt"
    given = [f"@{path}"]
    assert read_prompts(given)[1][0].what == "there is no such file"
    path.write_text("\n  \n")
    assert read_prompts(given)[1][0].what == "it holds no prompt"
    path.write_bytes(b"\xff\xfe")
    assert "UTF-8" in read_prompts(given)[1][0].what
    path.write_text("{text} is in {label}\n\n{text}: {label}\n")
    assert read_prompts([*given, "'{text}, {label}'"]) == (
        ["{text} is in {label}", "{text}: {label}", "{text}, {label}"],
        [],
    )
    path.write_bytes("\ufeff{text}\u2028is in {label}\r\n{text}\x0b{label}\n".encode())
    assert read_prompts(given) == (["{text}\u2028is in {label}", "{text}\x0b{label}"], [])
    assert [fault.advice for fault in read_prompts(["a", "b", "a"])[1]] == ["'a' is given twice"]
