"""The recommended variant: the smallest whose metric is not significantly below the best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from lorry_components.methods import METHODS
from lorry_components.metrics.differences import Difference
from lorry_components.studies.study_summary import StudyRow, StudySummary


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The variant to choose.

    Attributes:
        label: The variant's.
        section: YAML to paste into a task file.
        reason: Why, in a sentence.
    """

    label: str
    section: str
    reason: str


def recommend_variant(summary: StudySummary) -> Recommendation | None:
    """Choose the variant with the fewest trained parameters of those not significantly below the best.

    A variant is significantly below the best if the 95 % interval of its difference, the one that is shown,
    lies below 0. Of equally small variants the better one is chosen. Variants with a failed seed are left
    out, and those whose seeds say too little of the next training.

    Args:
        summary: The comparison.

    Returns:
        The choice, or None if no variant is complete, or the best is in doubt: see :func:`explain_doubts`.
    """
    complete = [row for row in summary.rows if row.is_complete and row.trained_parameters is not None]
    if not complete or explain_doubts(summary):
        return None
    complete = [row for row in complete if not row.doubt]
    best = max(complete, key=_read_value)
    differences = {
        row.variant.label: summary.compare(row.variant.label, best.variant.label)
        for row in complete
        if row is not best
    }
    near = [row for row in complete if row is best or differences[row.variant.label].high >= 0.0]
    chosen = min(near, key=lambda row: (row.trained_parameters or 0, -_read_value(row)))
    return Recommendation(
        label=chosen.variant.label,
        section=write_section(chosen),
        reason=_explain(chosen, best, complete, near, differences.get(chosen.variant.label))
        + _qualify(chosen, best, summary.rows),
    )


def explain_doubts(summary: StudySummary) -> str:
    """Return why nothing can be recommended from rows that are complete; empty: something can.

    The seeds of the best say too little of its next training, or those of all do; or the best is not
    significantly better than a trivial baseline on the same rows, so that all differences are between
    trainings that failed.
    """
    complete = [row for row in summary.rows if row.is_complete and row.trained_parameters is not None]
    best = max(complete, key=_read_value, default=None)
    if best is None:
        return ""
    label = best.variant.label
    if best.doubt:
        return (
            f"{best.doubt}, and it has the highest mean. Another training may turn the order round. More "
            "optimiser steps (train.epochs, or a smaller train.batch_size) make trainings steadier, and more "
            "--seeds show it"
        )
    gains = {name: summary.compare_baseline(label, name) for name in summary.baselines}
    name, least = min(gains.items(), key=lambda pair: pair[1].low, default=("", None))
    if least is None or not best.variant.is_trained or least.low > 0.0:
        return ""
    return (
        f"{label} has the highest mean, {_read_value(best):.3f}, which is not significantly better than the "
        f"trivial baseline ({name}: {summary.baseline_values[name]:.3f}; difference {least.value:+z.3f}, "
        f"95 % interval {least.low:+z.3f} to {least.high:+z.3f}). More optimiser steps (train.epochs, or a "
        "smaller train.batch_size), another learning rate or more rows may help"
    )


def write_section(row: StudyRow) -> str:
    """Return the sections of a measured variant that belong into a task file, as YAML."""
    variant, spec = row.variant, row.variant.spec
    document: dict[str, Any] = {}
    if "wording" in variant.facts:
        document["data"] = {"template": spec.data.template}
    if variant.is_trained:
        method: dict[str, Any] = {"name": spec.method.name, **spec.method.options}
        if spec.method.max_adapter_mib is not None:
            method["max_adapter_mib"] = spec.method.max_adapter_mib
        document["method"] = method
        # Where nothing is trained in steps, a training section would be refused.
        document["train"] = {}
    if variant.is_trained and METHODS[spec.method.name].trains_in_steps:
        train = spec.train.model_dump(mode="json")
        # Always with the rate: the file's own may have been chosen for another method.
        rate = row.trainings[0].learning_rate
        own = {name: train[name] for name in variant.own_train if name in train}
        document["train"] = {**own, "learning_rate": rate}
    head = spec.head.model_dump(mode="json") if spec.head is not None else {}
    if variant.is_trained and (own_head := {name: head[name] for name in variant.own_head if name in head}):
        document["head"] = own_head
    lines: list[str] = []
    for name, section in document.items():
        written = yaml.safe_dump(section, default_flow_style=True, sort_keys=False, width=1_000_000)
        lines.append(f"{name}: {written.strip()}")
    return "\n".join(lines)


def _explain(
    chosen: StudyRow,
    best: StudyRow,
    rows: Sequence[StudyRow],
    near: Sequence[StudyRow],
    difference: Difference | None,
) -> str:
    name, value, highest = chosen.variant.label, _read_value(chosen), _read_value(best)
    count = f"{chosen.trained_parameters:,} trained parameters"
    if len(rows) == 1:
        return f"{name} is the only one to choose from: {value:.3f} with {count}"
    if difference is None:
        as_good = [row for row in rows if row is not best and _read_value(row) == highest]
        head = f"{name} has the best metric, {value:.3f},"
        if as_good:
            head = f"{name} and {_join_labels(as_good)} have the best metric, {value:.3f}; it is chosen"
        is_smallest = all(_count(row) >= _count(chosen) for row in rows)
        beside = "" if is_smallest else ", and all that train fewer are significantly below it"
        return f"{head} with {count}{beside}"
    equally_small = [row for row in near if row is not chosen and _count(row) == _count(chosen)]
    if equally_small:
        head = (
            f"{name} scores no less than {_join_labels(equally_small)}, which train as many parameters "
            f"({chosen.trained_parameters:,}), the fewest"
        )
    else:
        head = f"{name} trains the fewest parameters ({chosen.trained_parameters:,})"
    return (
        f"{head} of those whose metric is not significantly below the best, {best.variant.label}: "
        f"{value:.3f}, best {highest:.3f}, difference {difference.value:+z.3f} (95 % interval "
        f"{difference.low:+z.3f} to {difference.high:+z.3f})"
    )


def _qualify(chosen: StudyRow, best: StudyRow, rows: Sequence[StudyRow]) -> str:
    """Say how far the reason can be relied on."""
    failed = sum(not row.is_complete or row.trained_parameters is None for row in rows)
    doubtful = sum(row.is_complete and bool(row.doubt) for row in rows)
    limits = f"; {failed} that failed {'is' if failed == 1 else 'are'} left out" if failed else ""
    if doubtful:
        limits += f"; {doubtful} whose seeds say too little {'is' if doubtful == 1 else 'are'} left out"
    trained = [row for row in (chosen, best) if row.variant.is_trained]
    if any(len(row.seeds) == 1 for row in trained):
        limits += "; with one seed, another training may say otherwise"
    if chosen.variant.other_settings:
        limits += f"; measured with {', '.join(chosen.variant.other_settings)} as set on the command line"
    return limits


def _join_labels(rows: Sequence[StudyRow]) -> str:
    return ", ".join(row.variant.label for row in rows)


def _count(row: StudyRow) -> int:
    return row.trained_parameters or 0


def _read_value(row: StudyRow) -> float:
    assert row.estimate is not None
    return row.estimate.value
