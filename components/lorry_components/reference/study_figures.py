"""Published figures for the studies: Hu et al. 2021, tables 5 and 6, GPT-3, in per cent."""

from collections.abc import Mapping
from typing import Any

RANK_SOURCE = "Hu et al. 2021, table 6: GPT-3 175B, LoRA on W_q and W_v, validation accuracy in %"
TARGET_SOURCE = "Hu et al. 2021, table 5: GPT-3 175B, LoRA with 18M parameters, validation accuracy in %"

_BY_RANK: Mapping[int, Mapping[str, float]] = {
    1: {"WikiSQL": 73.4, "MNLI": 91.3},
    2: {"WikiSQL": 73.3, "MNLI": 91.4},
    4: {"WikiSQL": 73.7, "MNLI": 91.3},
    8: {"WikiSQL": 73.8, "MNLI": 91.6},
    64: {"WikiSQL": 73.5, "MNLI": 91.4},
}
_BY_TARGETS: Mapping[str, Mapping[str, float]] = {
    "q": {"WikiSQL": 70.4, "MNLI": 91.0},
    "k": {"WikiSQL": 70.0, "MNLI": 90.8},
    "v": {"WikiSQL": 73.0, "MNLI": 91.0},
    "o": {"WikiSQL": 73.2, "MNLI": 91.3},
    "q+k": {"WikiSQL": 71.4, "MNLI": 91.3},
    "q+v": {"WikiSQL": 73.7, "MNLI": 91.3},
    "q+k+v+o": {"WikiSQL": 73.7, "MNLI": 91.7},
}


def find_published(study: str, facts: Mapping[str, Any]) -> Mapping[str, float] | None:
    """Return the published figures for a row of a study, by data set; None if there are none."""
    if study == "rank":
        return _BY_RANK.get(facts["rank"])
    if study == "targets":
        return _BY_TARGETS.get("+".join(facts["projections"]))
    return None


def find_source(study: str) -> str | None:
    """Return the source of a study's published figures."""
    return {"rank": RANK_SOURCE, "targets": TARGET_SOURCE}.get(study)
