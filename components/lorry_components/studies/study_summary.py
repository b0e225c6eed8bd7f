"""The summary of a comparison: a row for each variant, all scored on the same resampled rows.

Intervals and differences are of the mean over a variant's seeds, as other rows would give it; the spread over
seeds is shown beside them. The two answer different questions: what other rows, and what another training,
would have given. A difference counts where its 95 % interval, the one that is shown, does not cover 0.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lorry_components.data.prepared import load_card, load_labels
from lorry_components.metrics.base import Scorer, average_scorers
from lorry_components.metrics.bootstrap import estimate_metrics
from lorry_components.metrics.differences import Difference, estimate_difference
from lorry_components.steps.prepare_data.step import load_part
from lorry_components.studies.trials import Training, Trial, TrialFolder, TrialResult
from lorry_components.studies.variants import Variant
from lorry_components.task_types import Prediction, Target, TaskType
from lorry_components.tasks.definition import find_task_type
from lorry_registry.errors import Fault, InvalidDataError
from lorry_registry.manifest import MetricValue
from lorry_registry.tasks.task_spec import EvaluateSpec

# Standard deviations over seeds by the width of the interval over rows. Seeds of .83, .85 and .87 on 500 rows
# have one of .3; .462 and .940 on 200 rows have one of 3.
_UNSTEADY = 2.0


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """The outcome of a trial.

    Attributes:
        trial: The trial.
        folder: Its files.
        result: Its result; None if it failed.
        error: Why it failed, if it did.
        is_known: Whether its result is from an earlier study.
    """

    trial: Trial
    folder: TrialFolder
    result: TrialResult | None
    error: str = ""
    is_known: bool = False


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A row of a comparison.

    Attributes:
        variant: What was compared.
        seeds: The seeds that are done.
        values: The primary metric of each.
        estimate: Their mean, with its 95 % interval over rows; None if no seed is done.
        spread: The standard deviation over seeds; None for fewer than two.
        metrics: All metrics, as means over seeds.
        difference: The difference to the reference; None for the reference itself.
        trainings: What each training took.
        errors: Why seeds failed.
        collapsed: The seeds whose training collapsed -> the one answer that each gives to every test row.
    """

    variant: Variant
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    estimate: MetricValue | None
    spread: float | None
    metrics: Mapping[str, float]
    difference: Difference | None
    trainings: tuple[Training, ...]
    errors: tuple[str, ...]
    collapsed: Mapping[int, str] = field(default_factory=dict)

    @property
    def trained_parameters(self) -> int | None:
        """The method's, without the head; 0 if nothing is trained, None if it is not known."""
        if not self.variant.is_trained:
            return 0
        return self.trainings[0].parameters.adapter if self.trainings else None

    @property
    def is_unsteady(self) -> bool:
        """Whether its seeds differ by far more than the rows let expect.

        Their standard deviation is over twice as large as the whole interval, which is over rows alone: it
        says nothing then of what another training would give.
        """
        if self.estimate is None or self.spread is None:
            return False
        return self.spread > _UNSTEADY * (self.estimate.high - self.estimate.low)

    @property
    def doubt(self) -> str:
        """Why its metric says little about its next training; empty: nothing is known against it."""
        low, high = min(self.values, default=0.0), max(self.values, default=0.0)
        if self.collapsed:
            scores = " and ".join(
                f"seed {seed} answers every test row with {one!r}" for seed, one in self.collapsed.items()
            )
            return f"{self.variant.label} has collapsed: {scores}"
        if self.is_unsteady:
            return (
                f"{self.variant.label} depends on the seed more than on the rows: "
                f"{len(self.values)} seeds score {low:.3f} to {high:.3f}"
            )
        return ""

    @property
    def is_complete(self) -> bool:
        """Whether it has a metric, and no seed of it failed."""
        return self.estimate is not None and not self.errors

    def average_seconds(self) -> float | None:
        """Return the mean time of its trainings in seconds; None if none is known."""
        known = [training.seconds for training in self.trainings if training.seconds is not None]
        return float(np.mean(known)) if known else None

    def find_peak_memory(self) -> int | None:
        """Return the highest peak memory of its trainings, in bytes."""
        return max((training.peak_memory.size_bytes for training in self.trainings), default=None)

    def describe(self) -> dict[str, Any]:
        """Return the row as plain values."""
        training = self.trainings[0] if self.trainings else None
        parameters = training.parameters if training else None
        section = self.variant.spec.method
        return {
            "label": self.variant.label,
            "method": section.name if self.variant.is_trained else None,
            "options": dict(section.options) if self.variant.is_trained else {},
            "learning_rate": training.learning_rate if training else None,
            **self.variant.facts,
            "seeds": list(self.seeds),
            "values": list(self.values),
            "value": self.estimate.value if self.estimate else None,
            "interval": [self.estimate.low, self.estimate.high] if self.estimate else None,
            "spread": self.spread,
            "metrics": dict(self.metrics),
            "difference": self.difference.value if self.difference else None,
            "difference_interval": [self.difference.low, self.difference.high] if self.difference else None,
            "trained_parameters": self.trained_parameters,
            "head_parameters": parameters.head if parameters else None,
            "total_parameters": parameters.total if parameters else None,
            "adapter_bytes": training.adapter_bytes if training else None,
            "seconds": self.average_seconds(),
            "peak_memory_bytes": self.find_peak_memory(),
            "peak_memory_place": training.peak_memory.place if training else None,
            "device": training.device if training else None,
            "precision": training.precision if training else None,
            "errors": list(self.errors),
            "collapsed_seeds": list(self.collapsed),
            "doubt": self.doubt or None,
        }


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A comparison as a whole.

    Attributes:
        metric: The primary metric.
        positive: The class that it is of; None: it is not of a single class.
        part: The part of the data that it was measured on.
        examples: How many rows that part has.
        reference: The label of the variant that all are compared with; None if no trial is done.
        rows: One for each variant, in the order in which they were requested.
        scorers: What scores each variant, the mean over its seeds, on some of the rows.
        baselines: The trivial baselines, by name: what scores each on the same rows.
    """

    metric: str
    positive: str | None
    part: str
    examples: int
    reference: str | None
    rows: tuple[StudyRow, ...]
    scorers: Mapping[str, Scorer]
    baselines: Mapping[str, Scorer] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What a person reads for the metric."""
        return self.metric if self.positive is None else f"{self.metric} of {self.positive}"

    def compare(self, label: str, other: str) -> Difference:
        """Return how much better one variant is than another on the same rows."""
        return estimate_difference(self.scorers[label], self.scorers[other], self.examples)

    @property
    def baseline_values(self) -> dict[str, float]:
        """The metric of each trivial baseline."""
        return {name: scorer(np.arange(self.examples)) for name, scorer in self.baselines.items()}

    def compare_baseline(self, label: str, name: str) -> Difference:
        """Return how much better a variant is than a trivial baseline on the same rows."""
        return estimate_difference(self.scorers[label], self.baselines[name], self.examples)


def summarize_study(
    variants: Sequence[Variant], outcomes: Sequence[TrialOutcome], *, against: str | None = None
) -> StudySummary:
    """Score all finished trials on the same rows.

    Args:
        variants: The rows.
        outcomes: The outcomes of the trials.
        against: The label of the variant that all are compared with; None: the best.

    Raises:
        InvalidDataError: The trials were not evaluated on the same rows.
    """
    spec = variants[0].spec
    metric = spec.evaluate.primary or find_task_type(spec).primary
    done = {
        variant.label: [
            outcome for outcome in outcomes if outcome.trial.variant.label == variant.label and outcome.result
        ]
        for variant in variants
    }
    scored = {
        label: [_read_scores(outcome) for outcome in finished] for label, finished in done.items() if finished
    }
    rows = _count_rows(scored)
    scorers = {
        label: [
            part.task_type.find_metric(metric, spec.evaluate.positive)(part.targets, part.predictions)
            for part in parts
        ]
        for label, parts in scored.items()
    }
    found = {
        part.task_type.find_positive([metric], spec.evaluate.positive, part.predictions)
        for parts in scored.values()
        for part in parts
    }
    averages = {label: average_scorers(group) for label, group in scorers.items()}
    estimates = estimate_metrics(averages, rows, resamples=spec.evaluate.resamples) if averages else {}
    values = {label: [scorer(np.arange(rows)) for scorer in group] for label, group in scorers.items()}
    reference = (
        against
        if against in estimates
        else max(estimates, key=lambda label: estimates[label].value, default=None)
    )
    return StudySummary(
        metric=metric,
        positive=found.pop() if len(found) == 1 else None,
        part=outcomes[0].trial.part if outcomes else "",
        examples=rows,
        reference=reference,
        rows=tuple(
            StudyRow(
                variant=variant,
                seeds=tuple(outcome.trial.seed for outcome in done[variant.label]),
                values=tuple(values.get(variant.label, ())),
                estimate=estimates.get(variant.label),
                spread=_measure_spread(values.get(variant.label, ())),
                metrics=_average_metrics(spec.evaluate, scored.get(variant.label, ())),
                difference=_compare(averages, variant.label, reference, rows),
                trainings=tuple(
                    outcome.result.training
                    for outcome in done[variant.label]
                    if outcome.result and outcome.result.training
                ),
                errors=tuple(
                    f"{outcome.trial.name}: {outcome.error}"
                    for outcome in outcomes
                    if outcome.trial.variant.label == variant.label and outcome.error
                ),
                collapsed=_find_collapsed(done[variant.label], scored.get(variant.label, ())),
            )
            for variant in variants
        ),
        scorers=averages,
        baselines=_score_baselines(outcomes, metric),
    )


@dataclass(frozen=True, slots=True)
class _ScoredTrial:
    task_type: TaskType
    targets: list[Target]
    predictions: list[Prediction]


def _read_scores(outcome: TrialOutcome) -> _ScoredTrial:
    targets: list[Target] = []
    predictions: list[Prediction] = []
    with outcome.folder.predictions.open(encoding="utf-8") as stream:
        for line in stream:
            document = json.loads(line)
            label = document["label"]
            targets.append(tuple(label) if isinstance(label, list) else label)
            predictions.append(document["prediction"])
    return _ScoredTrial(find_task_type(outcome.trial.spec), targets, predictions)


def _score_baselines(outcomes: Sequence[TrialOutcome], metric: str) -> dict[str, Scorer]:
    """Return what scores each trivial baseline; they depend on the data alone, and are the same for all."""
    measured = (each for each in outcomes if each.result and each.result.evaluation.baselines)
    outcome = next(measured, None)
    if outcome is None:
        return {}
    trial, task_type = outcome.trial, find_task_type(outcome.trial.spec)
    examples = load_part(trial.data, trial.part)
    rows, targets = task_type.group_targets(
        [example.row for example in examples], [example.label for example in examples]
    )
    answers, labels = load_labels(trial.data, "train"), load_card(trial.data).labels
    prepare = task_type.find_metric(metric, trial.spec.evaluate.positive)
    found = task_type.predict_trivially(rows, answers, labels)
    return {name: prepare(targets, predictions) for name, predictions in found.items()}


def _find_collapsed(outcomes: Sequence[TrialOutcome], trials: Sequence[_ScoredTrial]) -> dict[int, str]:
    found = {
        outcome.trial.seed: trial.task_type.find_single_answer(trial.targets, trial.predictions)
        for outcome, trial in zip(outcomes, trials, strict=True)
        # What the untrained base answers is no matter of a training.
        if outcome.trial.variant.is_trained
    }
    return {seed: answer for seed, answer in found.items() if answer is not None}


def _count_rows(scored: Mapping[str, Sequence[_ScoredTrial]]) -> int:
    trials = [trial for group in scored.values() for trial in group]
    if any(trial.targets != trials[0].targets for trial in trials):
        fault = Fault("test", "not all variants were evaluated on the same rows")
        raise InvalidDataError("study", [fault], todo="compare variants of one task on one data set")
    return len(trials[0].targets) if trials else 0


def _compare(
    scorers: Mapping[str, Scorer], label: str, reference: str | None, rows: int
) -> Difference | None:
    if reference is None or label == reference or label not in scorers:
        return None
    return estimate_difference(scorers[label], scorers[reference], rows)


def _measure_spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _average_metrics(evaluate: EvaluateSpec, trials: Sequence[_ScoredTrial]) -> dict[str, float]:
    if not trials:
        return {}
    task_type = trials[0].task_type
    names = evaluate.metrics or [name for name in task_type.metrics if name not in task_type.optional_metrics]
    computed = [
        task_type.compute_metrics(names, trial.targets, trial.predictions, evaluate.positive)
        for trial in trials
    ]
    return {name: float(np.mean([metrics[name] for metrics in computed])) for name in computed[0]}
