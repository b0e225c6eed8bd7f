"""The study of ranks: how small an update may be (Hu et al. 2021, section 7.2)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lorry_components.studies.variants import Draft, TaskDocument
from lorry_registry.errors import Fault

DEFAULT_RANKS = (1, 2, 4, 8, 64)
# Methods whose options are LoRA's.
_LOW_RANK = ("lora", "qlora")
_NOT_OPTIONS = frozenset({"name", "max_adapter_mib"})


def pick_options(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a method section, without the fields that every method has."""
    return {key: section[key] for key in section if key not in _NOT_OPTIONS}


def choose_lora(task: TaskDocument) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the method section that a study of LoRA varies, and its changes to the train section.

    The task's own if it is a LoRA, and LoRA's defaults otherwise.
    """
    own = task.method
    if own.get("name") in _LOW_RANK:
        return own, {}
    keeps_rate = task.sets("train.learning_rate")
    return {"name": "lora", **task.method_settings}, {} if keeps_rate else {"learning_rate": None}


def draft_ranks(task: TaskDocument, ranks: Sequence[int]) -> list[Draft]:
    """Lay out LoRA over ranks; alpha stays, so that the learning rate suits every rank."""
    section, train = choose_lora(task)
    return [
        Draft(label=f"r={rank}", method={**section, "r": rank}, train=train, facts={"rank": rank})
        for rank in ranks
    ]


def check_ranks(ranks: Sequence[int]) -> Iterator[Fault]:
    """Yield the faults of a list of ranks."""
    for rank in dict.fromkeys(ranks):
        if rank < 1:
            yield Fault("--ranks", f"{rank} is not a rank", "write 1 or more")
        if ranks.count(rank) > 1:
            yield Fault("--ranks", f"{rank} is given twice")
