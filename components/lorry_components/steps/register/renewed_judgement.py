"""Judges a candidate once more, when the champion that it was judged by is no longer the champion."""

from pathlib import Path

from lorry_components.steps.evaluate.champion_comparison import (
    compare_champion,
    find_first_trial,
    load_scored_part,
)
from lorry_components.steps.evaluate.evaluation_report import EvaluationReport
from lorry_components.steps.gate.step import Decision, decide
from lorry_components.tasks.resolution import ResolvedTask
from lorry_registry.registry import Registry


def judge_anew(task: ResolvedTask, data: Path, evaluation: Path, *, registry: Registry) -> Decision:
    """Return the gate's decision on a candidate against the present champion.

    The candidate's predictions are those that its evaluation kept; the champion predicts the same rows now,
    or is compared by its recorded value where its base is not on this machine.

    Args:
        task: The task.
        data: The folder that ``prepare_data`` wrote.
        evaluation: The folder that ``evaluate`` wrote.
        registry: Where the champion is looked up.

    Raises:
        StoreError: The registry cannot be read.
    """
    scored = load_scored_part(task.task_type, data, evaluation)
    comparison = compare_champion(task, scored, registry)
    report = EvaluationReport.load(evaluation)
    # The champion may also have been withdrawn.
    first = find_first_trial(registry, task.spec, scored.card)
    if first is not None:
        first = first.model_copy(update={"baselines": report.evaluation.baselines})
    report = report.model_copy(update={"champion": comparison, "first": first})
    decision = decide(task.spec.gate, report)
    remark = "judged anew, since the champion had changed meanwhile"
    return decision.model_copy(update={"reasons": (remark, *decision.reasons)})
