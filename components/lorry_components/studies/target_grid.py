"""Grids of targets: which of attention's projections to adapt (Hu et al. 2021, section 7.1).

W_q, W_k, W_v and W_o are located by the base's structure, as blocks are. Some bases keep W_q, W_k and W_v in
one matrix: W_q alone cannot be updated there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lorry_components.methods.peft.lora import Lora
from lorry_components.methods.peft.targets import match_targets
from lorry_components.models.bases import find_base_folder
from lorry_components.models.blocks import Block, build_skeleton, find_layers, list_linear
from lorry_components.models.configuration import load_config
from lorry_components.studies.variants import Draft, MethodChoice, TaskDocument, draft_method
from lorry_registry.errors import Fault, InvalidTaskError, TrainingError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

LETTERS = ("q", "k", "v", "o")
Combination = tuple[str, ...]
LOW_RANK = ("lora", "qlora")
"""Methods whose options are LoRA's."""
_NOT_OPTIONS = frozenset({"name", "max_adapter_mib"})
_OPTION = "--grid targets"

# By their names inside a block, in the order of LETTERS.
_PATHS = (
    # BERT, RoBERTa, ELECTRA
    ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    # DeBERTa-v2
    (
        "attention.self.query_proj",
        "attention.self.key_proj",
        "attention.self.value_proj",
        "attention.output.dense",
    ),
    # DeBERTa
    ("attention.self.in_proj",) * 3 + ("attention.output.dense",),
    # DistilBERT
    ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
    # ModernBERT
    ("attn.Wqkv",) * 3 + ("attn.Wo",),
    # GPT-2
    ("attn.c_attn",) * 3 + ("attn.c_proj",),
    # GPT-Neo
    ("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj", "attn.attention.out_proj"),
    # GPT-J
    ("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.out_proj"),
    # GPT-NeoX
    ("attention.query_key_value",) * 3 + ("attention.dense",),
    # BLOOM, Falcon
    ("self_attention.query_key_value",) * 3 + ("self_attention.dense",),
    # Llama, Mistral, Gemma, Qwen
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    # Phi-3
    ("self_attn.qkv_proj",) * 3 + ("self_attn.o_proj",),
    # Phi
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.dense"),
    # OPT, BART
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
    # T5 and MT5, encoder and decoder; not the decoder's look at the encoder
    tuple(f"layer.0.SelfAttention.{letter}" for letter in LETTERS),
)


@dataclass(frozen=True, slots=True)
class Projections:
    """Attention's projections in a base.

    Attributes:
        model: The name of the base's class.
        names: Letter -> the name of its module, as a target; several letters may share one.
        sizes: Target -> parameters that a rank of one adds: inputs and outputs of all its matrices.
        lengths: Target -> parameters that DoRA adds at any rank: the outputs of all its matrices.
    """

    model: str
    names: Mapping[str, str]
    sizes: Mapping[str, int]
    lengths: Mapping[str, int]

    def list_targets(self, combination: Combination) -> list[str]:
        """Return the targets of a combination, each once."""
        return list(dict.fromkeys(self.names[letter] for letter in combination))

    def find_fault(self, combination: Combination) -> str:
        """Return why a combination is impossible in this base, or an empty text."""
        targets = self.list_targets(combination)
        covered = [letter for letter in LETTERS if self.names[letter] in targets]
        if covered == list(combination):
            return ""
        together = [letter for letter in covered if self.names[letter] == self.names["q"]]
        return (
            f"{', '.join(f'W_{letter}' for letter in together)} are one matrix of {self.model} "
            f"({self.names['q']}): none of them can be adapted alone"
        )

    def count_unit(self, combination: Combination) -> int:
        """Return how many parameters a rank of one takes on a combination."""
        return sum(self.sizes[target] for target in self.list_targets(combination))

    def count_lengths(self, combination: Combination) -> int:
        """Return how many lengths of columns DoRA learns on a combination, besides the update."""
        return sum(self.lengths[target] for target in self.list_targets(combination))


def is_combination(text: str) -> bool:
    """Return whether a text names projections by their letters, such as ``qv``."""
    return set(text) <= set(LETTERS)


def find_projections(model: "nn.Module", *, layers: int | None = None) -> Projections:
    """Locate attention's projections in a model.

    Args:
        model: A base without a head.
        layers: How many blocks are adapted, counted from the last of each stack; None: all.

    Raises:
        TrainingError: The architecture is not known.
    """
    blocks = find_layers(model)
    paths = _find_paths(blocks[0])
    if paths is None:
        raise TrainingError(
            f"the modules of W_q, W_k, W_v and W_o in {type(model).__name__} are not known",
            where="base.model",
            todo="compare targets of your own: --grid 'targets=[a],[b]'",
        )
    linear = list_linear(model)
    names = {letter: _name_target(path, linear) for letter, path in zip(LETTERS, paths, strict=True)}
    adapted = tuple(f"{name}." for name in _choose_blocks(blocks, layers))
    modules = {
        target: [
            module for name, module in match_targets(linear, [target]).items() if name.startswith(adapted)
        ]
        for target in names.values()
    }
    return Projections(
        type(model).__name__,
        names,
        sizes={target: sum(map(_measure, matrices)) for target, matrices in modules.items()},
        lengths={target: sum(map(_count_outputs, matrices)) for target, matrices in modules.items()},
    )


def draft_targets(
    task: TaskDocument, values: Sequence[str], choices: Sequence[MethodChoice]
) -> tuple[list[Draft], list[Fault], list[str]]:
    """Lay out LoRA over combinations of projections, each with the rank that one budget allows.

    The budget is the number of parameters that the method trains without the grid.

    Args:
        task: The task; faults of its own are not reported here.
        values: Combinations of letters, such as ``qv``.
        choices: What is trained on each.

    Returns:
        The drafts, the faults, and what a reader needs to know.

    Raises:
        BaseModelError: The base is not there.
    """
    combinations = [tuple(letter for letter in LETTERS if letter in value) for value in values]
    drafts: list[Draft] = []
    faults: list[Fault] = []
    notes: list[str] = []
    for choice in choices:
        if choice.name not in LOW_RANK:
            todo = "write the names of modules: --grid 'targets=[query],[value]'"
            faults.append(Fault(f"--methods {choice.label}", "letters stand for targets of LoRA alone", todo))
            continue
        draft = draft_method(choice, task)
        try:
            spec = task.parse({**task.content, "method": draft.method})
        except InvalidTaskError as error:
            faults += task.leave_out_own_faults(error.faults)
            continue
        laid_out, wrong, budget = lay_out_targets(
            load_config(find_base_folder(spec.base)), draft, combinations
        )
        drafts += laid_out
        faults += wrong
        notes.append(f"each {choice.label} trains at most {budget:,} parameters")
    return drafts, faults, notes


def lay_out_targets(
    config: "PretrainedConfig", draft: Draft, combinations: Sequence[Combination]
) -> tuple[list[Draft], list[Fault], int]:
    """Lay out one method on a base; return its drafts, the faults, and the budget.

    Args:
        config: The base's configuration.
        draft: The method without the grid.
        combinations: What is compared.
    """
    section = draft.method or {}
    faults = list(Lora.read_options(_pick_options(section)).faults)
    if faults:
        return [], faults, 0
    model = build_skeleton(config)
    try:
        projections = find_projections(model, layers=section.get("layers"))
    except TrainingError as error:
        return [], [Fault(error.where, error.what, error.todo)], 0
    budget = _count_own(section, model)
    faults = [
        Fault(f"{_OPTION}={''.join(combination)}", reason)
        for combination in combinations
        if (reason := projections.find_fault(combination))
    ]
    faults += _check_budget(projections, combinations, budget, has_lengths=_has_lengths(section))
    if faults:
        return [], faults, budget
    return [_draft(draft, section, projections, each, budget) for each in combinations], [], budget


def _draft(
    draft: Draft,
    section: Mapping[str, Any],
    projections: Projections,
    combination: Combination,
    budget: int,
) -> Draft:
    fixed = projections.count_lengths(combination) if _has_lengths(section) else 0
    rank = (budget - fixed) // projections.count_unit(combination)
    letters = "".join(combination)
    return replace(
        draft,
        label=f"{draft.label} targets={letters} r={rank}",
        method={**section, "r": rank, "targets": projections.list_targets(combination)},
        facts={"grid": letters, "rank": rank},
    )


def _pick_options(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a method section, without the fields that every method has."""
    return {key: section[key] for key in section if key not in _NOT_OPTIONS}


def _count_own(section: Mapping[str, Any], model: "PreTrainedModel") -> int:
    method = Lora(_pick_options(section))
    targeted = method.list_targeted(model)
    layers = section.get("layers")
    if layers is not None:
        adapted = tuple(f"{name}." for name in _choose_blocks(find_layers(model), layers))
        targeted = {name: module for name, module in targeted.items() if name.startswith(adapted)}
    fixed = sum(map(_count_outputs, targeted.values())) if _has_lengths(section) else 0
    return int(method.options.r) * sum(map(_measure, targeted.values())) + fixed


def _has_lengths(section: Mapping[str, Any]) -> bool:
    """Return whether the lengths of columns are trained beside A and B."""
    return bool(Lora(_pick_options(section)).options.dora)


def _check_budget(
    projections: Projections, combinations: Sequence[Combination], budget: int, *, has_lengths: bool
) -> Iterator[Fault]:
    if budget == 0:
        yield Fault("method.targets", "adapts nothing in this base, so that there is no budget to share")
        return
    for combination in combinations:
        unit = projections.count_unit(combination)
        unit += projections.count_lengths(combination) if has_lengths else 0
        if budget < unit:
            yield Fault(
                f"{_OPTION}={''.join(combination)}",
                f"a rank of 1 takes {unit:,} parameters, more than the {budget:,} of the method without the "
                "grid",
                "give it a higher rank: --set method.r=N",
            )


def _choose_blocks(blocks: Sequence[Block], layers: int | None) -> list[str]:
    stacks: dict[str, list[str]] = {}
    for block in blocks:
        stacks.setdefault(block.name.rpartition(".")[0], []).append(block.name)
    return [name for stack in stacks.values() for name in (stack if layers is None else stack[-layers:])]


def _find_paths(block: Block) -> tuple[str, ...] | None:
    present = {name for name, _ in block.module.named_modules()}
    return next((paths for paths in _PATHS if present.issuperset(paths)), None)


def _name_target(path: str, linear: "Mapping[str, nn.Module]") -> str:
    """Return the shortest end of a path that names the same modules: ``query``, but ``attn.c_proj``."""
    wanted = match_targets(linear, [path]).keys()
    parts = path.split(".")
    ends = (".".join(parts[start:]) for start in reversed(range(len(parts))))
    return next(end for end in ends if match_targets(linear, [end]).keys() == wanted)


def _measure(module: "nn.Module") -> int:
    weight: Any = module.weight
    return int(sum(weight.shape))


def _count_outputs(module: "nn.Module") -> int:
    weight: Any = module.weight
    # GPT-2's Conv1D keeps its weights the other way round.
    return int(weight.shape[1] if type(module).__name__ == "Conv1D" else weight.shape[0])
