"""How the three studies are laid out."""

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
from lorry_components.reference.study_figures import find_published
from lorry_components.studies.prompt_study import check_prompts, draft_prompts, read_prompts
from lorry_components.studies.rank_study import check_ranks, draft_ranks
from lorry_components.studies.target_study import (
    COMBINATIONS,
    LETTERS,
    draft_targets,
    find_projections,
    lay_out_targets,
    name_combination,
    parse_combinations,
)
from lorry_components.studies.variants import MethodChoice, TaskDocument, build_variants
from lorry_components.tasks.definition import find_method
from lorry_registry.errors import TrainingError

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


def test_targets_share_one_budget(task_file: TaskFile) -> None:
    task = TaskDocument.load(task_file())
    grid, faults = lay_out_targets(task)
    assert grid is not None
    assert not faults
    # r=4 on query and value of two layers of 32.
    assert grid.budget == 4 * 2 * 2 * 64
    assert {draft.label: draft.facts["rank"] for draft in grid.drafts} == {
        "q": 8,
        "k": 8,
        "v": 8,
        "o": 8,
        "q+k": 4,
        "q+v": 4,
        "q+k+v+o": 2,
    }
    assert [name_combination(each) for each in COMBINATIONS] == [draft.label for draft in grid.drafts]
    variants = build_variants(task, grid.drafts)
    assert variants[3].spec.method.options == {"r": 8, "targets": ["attention.output.dense"]}


def test_a_budget_that_does_not_divide_is_not_exceeded(task_file: TaskFile) -> None:
    grid, _ = lay_out_targets(TaskDocument.load(task_file()), budget=700)
    assert grid is not None
    assert {draft.label: draft.facts["rank"] for draft in grid.drafts}["q+v"] == 2
    assert {draft.label: draft.facts["rank"] for draft in grid.drafts}["q+k+v+o"] == 1


def test_a_budget_below_one_rank_is_refused(task_file: TaskFile) -> None:
    grid, faults = lay_out_targets(TaskDocument.load(task_file()), budget=200)
    assert grid is None
    assert [fault.advice for fault in faults] == [
        "200 parameters are fewer than a rank of 1 takes on q+k, 256",
        "200 parameters are fewer than a rank of 1 takes on q+v, 256",
        "200 parameters are fewer than a rank of 1 takes on q+k+v+o, 512",
    ]


def test_a_section_that_adapts_nothing_gives_no_budget(task_file: TaskFile) -> None:
    task = TaskDocument.load(task_file(method={"name": "lora", "targets": ["nope"]}))
    _, faults = lay_out_targets(task)
    assert [fault.where for fault in faults] == ["--budget"]
    grid, _ = lay_out_targets(task, budget=1024)
    assert grid is not None


def test_a_study_stays_in_the_layers_of_its_section(task_file: TaskFile) -> None:
    method = {"name": "lora", "r": 4, "targets": ["query", "value"], "layers": 1}
    grid, _ = lay_out_targets(TaskDocument.load(task_file(method=method)))
    assert grid is not None
    assert grid.budget == 4 * 2 * 64
    assert grid.drafts[0].method == {"name": "lora", "r": 8, "targets": ["query"], "layers": 1}


def test_another_method_is_replaced_by_loras_defaults(task_file: TaskFile) -> None:
    task = TaskDocument.load(task_file(method={"name": "bitfit"}))
    grid, _ = lay_out_targets(task)
    assert grid is not None
    (first, *_) = build_variants(task, grid.drafts)
    assert first.spec.method.name == "lora"
    assert first.spec.train.learning_rate is None


def test_one_matrix_cannot_be_taken_apart(task_file: TaskFile) -> None:
    task = TaskDocument.load(task_file(method={"name": "lora", "r": 4}))
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2)
    grid, _ = draft_targets(task, config)
    assert grid is not None
    assert [draft.label for draft in grid.drafts] == ["o", "q+k+v", "q+k+v+o"]
    (note,) = grid.notes
    assert note.startswith("left out: q, k, v, q+k, q+v. W_q, W_k, W_v are one matrix of GPT2Model (c_attn)")
    grid, faults = draft_targets(task, config, combinations=[("q", "v"), ("o",)])
    assert grid is None
    assert [fault.where for fault in faults] == ["--combinations q+v"]


def test_combinations_are_read() -> None:
    assert parse_combinations("q,v+q, o") == ([("q",), ("q", "v"), ("o",)], [])
    _, faults = parse_combinations("q,w,v+q,q+v")
    assert [fault.advice for fault in faults] == [
        "there is no projection 'w'; write q, k, v, o",
        "q+v is given twice",
    ]


def test_faults_of_the_section_are_told(task_file: TaskFile) -> None:
    method = {"name": "lora", "r": "many"}
    assert lay_out_targets(TaskDocument.load(task_file(method=method))) == (None, [])
    _, faults = draft_targets(TaskDocument.load(task_file(method=method)), BertConfig(**SMALL))
    assert [fault.where for fault in faults] == ["method.r"]


@pytest.mark.parametrize("given", [{}, {"alpha": 5}])
def test_ranks_keep_alpha(task_file: TaskFile, tiny_bert: Path, given: dict[str, int]) -> None:
    method = {"name": "lora", "r": 8, "targets": ["query"], **given}
    task = TaskDocument.load(task_file(method=method))
    scales = []
    for variant in build_variants(task, draft_ranks(task, [1, 4, 8])):
        adapted: Any = find_method(variant.spec).adapt(AutoModel.from_pretrained(tiny_bert), frozenset())
        found = [getattr(module, "scaling", None) for module in adapted.modules()]
        scales.append({scaling["default"] for scaling in found if isinstance(scaling, dict)})
    alpha = given.get("alpha", 16)
    assert scales == [{alpha / 1}, {alpha / 4}, {alpha / 8}]


def test_the_lengths_of_dora_are_in_the_budget(task_file: TaskFile, tiny_bert: Path) -> None:
    method = {"name": "lora", "r": 4, "dora": True, "targets": ["query", "value"]}
    task = TaskDocument.load(task_file(method=method))
    grid, _ = lay_out_targets(task)
    assert grid is not None
    # Beside r=4 on query and value of two layers of 32: a length for each of 32 columns.
    assert grid.budget == 4 * 2 * 2 * 64 + 2 * 2 * 32
    for variant in build_variants(task, grid.drafts):
        model: Any = AutoModel.from_pretrained(tiny_bert)
        method_ = find_method(variant.spec)
        trained = method_.count_parameters(method_.adapt(model, frozenset()), frozenset()).adapter
        assert grid.budget - 256 * len(variant.facts["projections"]) < trained <= grid.budget
    _, faults = lay_out_targets(task, budget=150, combinations=[("q",)])
    assert [fault.advice for fault in faults] == ["150 parameters are fewer than a rank of 1 takes on q, 192"]


def test_options_of_the_command_line_reach_the_studies_of_lora(task_file: TaskFile) -> None:
    task = TaskDocument.load(task_file(method={"name": "bitfit"}), ["method.dropout=0.5"])
    grid, _ = lay_out_targets(task)
    assert grid is not None
    for draft in [*draft_ranks(task, [1, 2]), *grid.drafts]:
        assert draft.method is not None
        assert draft.method["dropout"] == 0.5
    assert len(build_variants(task, grid.drafts)) == 7


def test_wrong_ranks_are_told() -> None:
    assert [fault.advice for fault in check_ranks([0, 2, 2])] == [
        "0 is not a rank; write 1 or more",
        "2 is given twice",
    ]


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


def test_wordings_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "wordings.txt"
    assert read_prompts(path)[1][0].what == "there is no such file"
    path.write_text("\n  \n")
    assert read_prompts(path)[1][0].what == "it holds no prompt"
    path.write_bytes(b"\xff\xfe")
    assert "UTF-8" in read_prompts(path)[1][0].what
    path.write_text("{text} is in {label}\n\n{text}: {label}\n")
    assert read_prompts(path) == (["{text} is in {label}", "{text}: {label}"], [])
    path.write_bytes("\ufeff{text}\u2028is in {label}\r\n{text}\x0b{label}\n".encode())
    assert read_prompts(path) == (["{text}\u2028is in {label}", "{text}\x0b{label}"], [])


def test_wrong_wordings_are_told() -> None:
    assert [fault.advice for fault in check_prompts(["a", "b", "a"])] == ["'a' is given twice"]
    assert [fault.where for fault in check_prompts([])] == ["--template"]


def test_published_figures_stand_beside() -> None:
    assert find_published("rank", {"rank": 8}) == {"WikiSQL": 73.8, "MNLI": 91.6}
    assert find_published("rank", {"rank": 3}) is None
    assert find_published("targets", {"projections": ["q", "v"]}) == {"WikiSQL": 73.7, "MNLI": 91.3}
    assert find_published("targets", {"projections": ["q", "k", "v"]}) is None
    assert find_published("compare", {}) is None
