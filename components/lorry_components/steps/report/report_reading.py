"""From what a run left in the store to the facts of its report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from lorry_components.metrics.pictures import ConfusionPicture, Picture, ScatterPicture
from lorry_components.steps.evaluate.evaluation_report import ChampionComparison
from lorry_components.steps.finetune.learning_curve import LearningCurve
from lorry_components.steps.report.facts import (
    DataFacts,
    GainFacts,
    ReportFacts,
    TaskFacts,
)
from lorry_components.steps.report.step import RunReport, TaskReport
from lorry_components.steps.report.validation_gap import describe_validation_gap
from lorry_registry.ledger.events import Event
from lorry_registry.manifest import Manifest
from lorry_registry.records.adapter_facts import (
    AdapterFacts,
    BaselineFacts,
    MetricFacts,
    measure_adapter,
    read_adapter,
    sort_baselines,
)
from lorry_registry.records.adapter_names import label_method

_Document = TypeVar("_Document", bound=BaseModel)
_PICTURE: TypeAdapter[ConfusionPicture | ScatterPicture] = TypeAdapter(Picture)


class Recorded(BaseModel):
    """What a registry says of the version that a task's report is about; nothing of it need be known.

    Attributes:
        event: The event that registered it.
        manifest: Its manifest.
        former: The manifest of the champion that it challenged.
        former_report: What the run that registered that champion left.
        champion: The present champion's version.
    """

    event: Event | None = None
    manifest: Manifest | None = None
    former: Manifest | None = None
    former_report: TaskReport | None = None
    champion: int | None = None


NOTHING_RECORDED = Recorded()


def read_report(report: RunReport, recorded: Mapping[str, Recorded] | None = None) -> ReportFacts:
    """Return the facts of a run's report.

    Args:
        report: What the steps left.
        recorded: What the registry says, by task.
    """
    known = recorded or {}
    return ReportFacts(
        title=f"Run {report.run}",
        tasks=tuple(
            read_task(task, known.get(task.task, NOTHING_RECORDED), run=report.run) for task in report.tasks
        ),
    )


def read_task(report: TaskReport, recorded: Recorded = NOTHING_RECORDED, *, run: str = "") -> TaskFacts:
    """Return the facts of one task.

    What the steps left may be damaged: what cannot be read is left out.

    Args:
        report: What the steps left.
        recorded: What the registry says.
        run: The run's id.
    """
    prepared, trained, evaluated, registered = (
        report.details.get(step, {}) for step in ("prepare_data", "finetune", "evaluate", "register")
    )
    manifest, former, event = recorded.manifest, recorded.former, recorded.event
    comparison = _read(ChampionComparison, evaluated.get("champion"))
    is_done = report.status in ("promoted", "challenger", "unchanged") and bool(registered)
    reasons = _read_texts(registered.get("reasons")) if is_done else (report.reason,)
    against = set(_read_texts(report.details.get("gate", {}).get("against")))
    version = registered.get("version")
    adapter = read_adapter(manifest) if manifest else _read_unregistered(report.task, trained, evaluated)
    return TaskFacts(
        **dict(adapter),
        status=report.status,
        step=report.step,
        why=_read_text(prepared.get("reason")) if is_done else "",
        reasons=tuple(filter(None, reasons)),
        against=tuple(reason for reason in reasons if reason in against),
        version=version if isinstance(version, int) else event.version if event else None,
        champion=recorded.champion,
        adapter_id=event.adapter_id if event else _read_text(registered.get("adapter_id")),
        run=run,
        method_before=label_method(former.recipe) or former.method if former else "",
        gain=_read_gain(comparison),
        single_answer=_read_text(evaluated.get("single_answer")),
        kept_start=_read_text(trained.get("kept_start")),
        validation_gap=describe_validation_gap(report.details),
        curve=_read(LearningCurve, trained.get("curve")),
        picture=_read_picture(evaluated.get("picture")),
        data=_read_data(prepared, recorded.former_report),
        size_before=measure_adapter(former) if former else None,
        seconds={step: value for step, value in report.seconds.items() if math.isfinite(value)},
        train_seconds=_read_number(trained.get("train_seconds")),
        device=_read_text(trained.get("device")),
        mlflow_url=_read_address(trained.get("mlflow_url")),
        kfp_url=_read_address(trained.get("kfp_url")),
        registered_at=event.at if event else None,
        registered_by=event.by if event else "",
    )


def _read_unregistered(task: str, trained: Mapping[str, Any], evaluated: Mapping[str, Any]) -> AdapterFacts:
    """Return what the steps left of an adapter that has no manifest, or none that can be read."""
    probe = evaluated.get("linear_probe")
    return AdapterFacts(
        task=task,
        method=_read_text(trained.get("method")),
        examples=_read_count(evaluated.get("examples")),
        metrics=_list_metrics(evaluated),
        probe=_read(BaselineFacts, {"name": "linear probe", **probe}) if isinstance(probe, dict) else None,
        baselines=_list_baselines(evaluated.get("baselines")),
    )


def _list_metrics(evaluated: Mapping[str, Any]) -> tuple[MetricFacts, ...]:
    value = _read_number(evaluated.get("value"))
    if value is None:
        return ()
    bounds = evaluated.get("interval")
    low, high = map(_read_number, bounds) if isinstance(bounds, list) and len(bounds) == 2 else (None, None)
    title = _read_text(evaluated.get("metric_title")) or _read_text(evaluated.get("metric"))
    return (MetricFacts(title=title, value=value, low=low, high=high),)


def _read_gain(comparison: ChampionComparison | None) -> GainFacts | None:
    if comparison is None:
        return None
    confidence = comparison.confidence
    is_recorded = comparison.value is None
    return GainFacts(
        version=comparison.version,
        value=comparison.recorded if is_recorded else comparison.value,
        is_recorded=is_recorded,
        recorded=comparison.recorded,
        gain=comparison.gain,
        p_value=1.0 - confidence if confidence is not None else None,
        rows=comparison.examples,
        left_out=comparison.left_out,
        problem=comparison.problem,
        changes=comparison.changes,
    )


def _list_baselines(given: object) -> tuple[BaselineFacts, ...]:
    entries = [entry for entry in given if isinstance(entry, dict)] if isinstance(given, list) else []
    fields = ("name", "value", "examples", "gain")
    found = [
        _read(BaselineFacts, {name: entry[name] for name in fields if name in entry}) for entry in entries
    ]
    return sort_baselines(each for each in found if each)


def _read_data(prepared: Mapping[str, Any], former: TaskReport | None) -> DataFacts:
    before = former.details.get("prepare_data", {}) if former else {}
    return DataFacts(
        source=_read_text(prepared.get("source")),
        rows=_read_counts(prepared.get("rows")),
        rows_before=_read_counts(before.get("rows")),
        labels=_read_counts(prepared.get("labels")),
        labels_before=_read_counts(before.get("labels")),
        dropped=_read_counts(prepared.get("dropped")),
        warnings=_read_texts(prepared.get("warnings")),
    )


# What the steps left is JSON that anybody may have written who can write the store.


def _read(model: type[_Document], value: object) -> _Document | None:
    try:
        return model.model_validate(value) if value is not None else None
    except ValidationError:
        return None


def _read_picture(value: object) -> ConfusionPicture | ScatterPicture | None:
    try:
        return _PICTURE.validate_python(value) if value is not None else None
    except ValidationError:
        return None


def _read_text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _read_texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _read_number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number and isinstance(value, int | float) else None


def _read_count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _read_counts(value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        return {}
    counts = {str(name): _read_count(count) for name, count in value.items()}
    # The distribution of numbers has the same place, and is no counts.
    return (
        {name: count for name, count in counts.items() if count is not None}
        if all(count is not None for count in counts.values())
        else {}
    )


def _read_address(page: object) -> str:
    """Return the address of a page, or nothing: the store's documents are not ours alone to write."""
    return page if isinstance(page, str) and page.startswith(("http://", "https://")) else ""
