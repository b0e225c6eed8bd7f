"""The study of the rank: how small an update may be (Hu et al. 2021, section 7.2)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lorry_components.studies.drafting import Draft, TaskDocument
from lorry_registry.errors import Fault

DEFAULT_RANKS = (1, 2, 4, 8, 64)
_DEFAULT_RANK = 8
# Methods whose rank is the option ``r`` and whose scale is alpha / r.
_LOW_RANK = ("lora", "qlora")


def choose_lora(task: TaskDocument) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the method section that a study of LoRA varies, and its changes to the train section.

    The task's own when it is a LoRA; LoRA's defaults otherwise.
    """
    own = task.method
    if own.get("name") in _LOW_RANK:
        return own, {}
    keeps_rate = "train.learning_rate" in task.settings
    return {"name": "lora"}, {} if keeps_rate else {"learning_rate": None}


def draft_ranks(task: TaskDocument, ranks: Sequence[int]) -> list[Draft]:
    """Lay out LoRA over ranks.

    The scale alpha / r stays that of the task's section, so that the learning rate suits every rank: where
    the section leaves alpha out it is twice the rank already.
    """
    section, train = choose_lora(task)
    return [
        Draft(label=f"r={rank}", method=set_rank(section, rank), train=train, facts={"rank": rank})
        for rank in ranks
    ]


def set_rank(section: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """Return a method section with another rank and the same scale, alpha being a whole number."""
    changed = {**section, "r": rank}
    alpha, own_rank = section.get("alpha"), section.get("r", _DEFAULT_RANK)
    if isinstance(alpha, int) and isinstance(own_rank, int) and own_rank > 0:
        changed["alpha"] = max(1, round(alpha * rank / own_rank))
    return changed


def note_rounding(section: Mapping[str, Any], ranks: Sequence[int]) -> Iterator[str]:
    """Say at which ranks alpha had to be rounded, so that the scale is another one."""
    alpha, own_rank = section.get("alpha"), section.get("r", _DEFAULT_RANK)
    if not isinstance(alpha, int) or not isinstance(own_rank, int) or own_rank < 1:
        return
    for rank in ranks:
        if alpha * rank % own_rank:
            yield (
                f"r={rank}: alpha is {set_rank(section, rank)['alpha']}, the whole number nearest to "
                f"{alpha * rank / own_rank:g}; the scale alpha / r differs from the task's"
            )


def check_ranks(ranks: Sequence[int]) -> Iterator[Fault]:
    """Say what is wrong with a list of ranks."""
    for rank in dict.fromkeys(ranks):
        if rank < 1:
            yield Fault("--ranks", f"{rank} is not a rank; write 1 or more")
        if ranks.count(rank) > 1:
            yield Fault("--ranks", f"{rank} is given twice")
