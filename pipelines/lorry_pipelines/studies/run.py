"""Runs a comparison or a study from end to end: data once, trials in processes, one table, one picture."""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from lorry_components.models.bases import Base, resolve_base
from lorry_components.reference.study_figures import find_published, find_source
from lorry_components.steps.prepare_data.step import digest_source, load_card, prepare_data
from lorry_components.studies.conditions import find_hardware
from lorry_components.studies.prompt_study import describe_spreads
from lorry_components.studies.recommendation import Recommendation, recommend_variant
from lorry_components.studies.study_plot import plot_study
from lorry_components.studies.study_summary import StudySummary, TrialOutcome, summarize_study
from lorry_components.studies.trials import PreparedData, Trial, lay_out_trials, replace_file
from lorry_components.studies.variants import Variant
from lorry_components.tasks.checks import find_task_type
from lorry_pipelines.local.display import open_display
from lorry_pipelines.local.launch import report_disk
from lorry_pipelines.local.locking import hold_tasks, read_holder, take_lock
from lorry_pipelines.scheduling import refuse_what_does_not_fit
from lorry_pipelines.studies.tracking import StudyTracker
from lorry_pipelines.studies.trial_processes import Places, count_processors, list_devices, run_trials
from lorry_registry.cli.edge import brief_patience, print_warning
from lorry_registry.digests import digest_document, shorten_digest
from lorry_registry.errors import Fault, InvalidTaskError, NotFoundError
from lorry_registry.mlflow_index import MlflowIndex
from lorry_registry.settings import Settings
from lorry_registry.task_spec import TaskSpec

RESULTS_NAME, PLOT_NAME = "results.json", "plot.png"


@dataclass(frozen=True, slots=True)
class Study:
    """What is to be compared.

    Attributes:
        name: ``compare``, ``rank``, ``targets`` or ``prompts``.
        heading: What stands over the labels of the rows.
        variants: The rows.
        seeds: The seeds of each.
        against: The label of the row that all are compared with; None: the best.
        by_parameters: Whether the picture lays rows out by their trained parameters.
        notes: What a reader has to know.
    """

    name: str
    heading: str
    variants: Sequence[Variant]
    seeds: Sequence[int]
    against: str | None = None
    by_parameters: bool = True
    notes: Sequence[str] = ()

    @property
    def task(self) -> str:
        """The task's name."""
        return self.variants[0].spec.name


@dataclass(frozen=True, slots=True)
class StudyReport:
    """What came of a study.

    Attributes:
        study: What was compared.
        summary: The rows.
        recommendation: What to take; None when nothing is complete.
        outcomes: What became of each trial.
        results: The file that holds all of it.
        plot: The picture; None when nothing is done.
        notes: What a reader has to know, and what the rows say together.
    """

    study: Study
    summary: StudySummary
    recommendation: Recommendation | None
    outcomes: Sequence[TrialOutcome]
    results: Path
    plot: Path | None
    notes: Sequence[str]

    @property
    def failed(self) -> list[TrialOutcome]:
        """The trials that failed."""
        return [outcome for outcome in self.outcomes if outcome.result is None]

    def describe_rows(self) -> list[dict[str, Any]]:
        """Return the rows as plain values."""
        chosen = self.recommendation.label if self.recommendation else None
        rows = []
        for row in self.summary.rows:
            published = find_published(self.study.name, row.variant.facts)
            described = row.describe() | {
                "metric": self.summary.metric,
                "compared_with": self.summary.reference,
                "recommended": row.variant.label == chosen,
            }
            rows.append(described | ({"published": dict(published)} if published else {}))
        return rows


@dataclass(slots=True)
class StudyOptions:
    """How a study is run.

    Attributes:
        jobs: How many trials at a time; None: by processors.
        output: Where results and picture go; None: into the study's own folder.
        quiet: Whether nothing is shown meanwhile.
        force: Whether trials are run whose plan does not fit their resources.
    """

    jobs: int | None = None
    output: Path | None = None
    quiet: bool = False
    force: bool = False


def run_study(study: Study, settings: Settings, options: StudyOptions) -> StudyReport:
    """Prepare the data, run the trials that are not done, and sum up.

    Trials are kept by what decides their result, below ``LORRY_HOME/studies``: another study of the same task
    takes them over, and an interrupted one goes on from their checkpoints.

    Raises:
        BaseModelError: The base is not usable.
        ConflictError: The same study is going on already.
        InvalidDataError: The data cannot be used.
        InvalidTaskError: A plan does not fit the task's resources.
        StoreError: The disk is full or closed.
    """
    if not options.force:
        _refuse_misfits(study.variants)
    root = settings.home / "studies"
    with report_disk(settings.home), brief_patience():
        trials = _lay_out(study, root)
        folder = _name_folder(root, study, trials)
        # Of trials that two studies share, one trains and the other waits; of the very same study, one runs.
        with hold_tasks(settings.locks, [folder.name]):
            folder.mkdir(parents=True, exist_ok=True)
            tracker = StudyTracker(
                MlflowIndex(settings.tracking_uri),
                task=study.task,
                study=study.name,
                folder=folder,
                warn=print_warning,
            )
            outcomes = _run(study, trials, root / "cells", tracker, options)
            return _conclude(study, outcomes, options.output or folder, tracker)


def _refuse_misfits(variants: Sequence[Variant]) -> None:
    faults: list[Fault] = []
    todo = ""
    for variant in variants:
        try:
            refuse_what_does_not_fit([variant.spec])
        except InvalidTaskError as error:
            faults += [Fault(variant.label, fault.what, fault.remedy) for fault in error.faults]
            todo = error.todo
    if faults:
        raise InvalidTaskError("resources", faults, todo=todo)


def _lay_out(study: Study, root: Path) -> list[Trial]:
    base = resolve_base(study.variants[0].spec.base)
    prepared: dict[str, PreparedData] = {}
    data: dict[str, PreparedData] = {}
    for variant in study.variants:
        key = _digest_data(variant.spec, base)
        if key not in prepared:
            prepared[key] = _prepare(variant.spec, base, root / "data" / shorten_digest(key, 32))
        data[variant.label] = prepared[key]
    for warning in dict.fromkeys(told for each in prepared.values() for told in each.warnings):
        print_warning(f"{study.task}: {warning}")
    return lay_out_trials(
        study.variants,
        study.seeds,
        data=data,
        fingerprint=base.identity.fingerprint,
        hardware=find_hardware(),
    )


def _digest_data(spec: TaskSpec, base: Base) -> str:
    return digest_document(
        {
            # By whose tokens the data card warns.
            "base": base.identity.fingerprint,
            "task": spec.name,
            "kind": spec.kind,
            "data": spec.data.model_dump(mode="json"),
            "source": digest_source(spec.data, reads_images=find_task_type(spec).reads_images),
        }
    )


def _prepare(spec: TaskSpec, base: Base, folder: Path) -> PreparedData:
    with contextlib.ExitStack() as locks:
        # Another study may be preparing the same rows.
        take_lock(locks, folder.with_name(f"{folder.name}.lock"), waits=True)
        try:
            card = load_card(folder)
        except NotFoundError:
            card = prepare_data(spec, folder, base=base.folder)
    return PreparedData(folder, card.data_digest, tuple(card.warnings))


def _find_known(trial: Trial, root: Path) -> TrialOutcome | None:
    folder = trial.open(root)
    result = folder.read_result()
    return TrialOutcome(trial, folder, result, is_known=True) if result is not None else None


def _name_folder(root: Path, study: Study, trials: Sequence[Trial]) -> Path:
    identity = {"study": study.name, "cells": [trial.digest for trial in trials], "against": study.against}
    return root / f"{study.name}-{study.task}-{shorten_digest(digest_document(identity), 8)}"


def _run(
    study: Study, trials: Sequence[Trial], root: Path, tracker: StudyTracker, options: StudyOptions
) -> list[TrialOutcome]:
    """Run the trials that are not done, each once; what came of it belongs to all trials of its digest."""
    first: dict[str, Trial] = {}
    for trial in trials:
        first.setdefault(trial.digest, trial)
    outcomes = {digest: known for digest, trial in first.items() if (known := _find_known(trial, root))}
    waiting = [trial for trial in first.values() if trial.digest not in outcomes]
    if not options.quiet:
        taken = f", {len(outcomes)} taken over" if outcomes else ""
        click.echo(f"{study.task}: {len(first)} trials{taken}; files: {root.parent}", err=True)
    if waiting or not tracker.has_all(outcomes):
        tracker.open({"study": study.name, "seeds": list(study.seeds), "cells": len(first)})
        for outcome in outcomes.values():
            tracker.log_trial(outcome)

    def take(outcome: TrialOutcome) -> None:
        outcomes[outcome.trial.digest] = outcome
        tracker.log_trial(outcome)

    try:
        _run_waiting(waiting, root, options, take)
    except KeyboardInterrupt:
        tracker.close((), {}, failed=True)
        done = sum(outcome.result is not None for outcome in outcomes.values())
        click.echo(
            f"{done} of {len(first)} trials are done; they are kept, and the checkpoints of the "
            "others: the same command goes on from there",
            err=True,
        )
        raise
    return [replace(outcomes[trial.digest], trial=trial) for trial in trials]


def _run_waiting(
    waiting: Sequence[Trial], root: Path, options: StudyOptions, take: Callable[[TrialOutcome], None]
) -> None:
    """Run trials; those that another study is running meanwhile come last, and are taken over from it."""
    while waiting:
        with contextlib.ExitStack() as locks:
            mine = [trial for trial in waiting if take_lock(locks, trial.open(root).lock)]
            if not mine:
                # Nothing is held here, so that two studies never wait for each other.
                lock = waiting[0].open(root).lock
                click.echo(
                    f"{waiting[0].name}: another study is running it (process {read_holder(lock)}); waiting",
                    err=True,
                )
                take_lock(locks, lock, waits=True)
                mine = [waiting[0]]
            _run_held(mine, root, options, take)
        waiting = [trial for trial in waiting if trial not in mine]


def _run_held(
    trials: Sequence[Trial], root: Path, options: StudyOptions, take: Callable[[TrialOutcome], None]
) -> None:
    left = []
    for trial in trials:
        # Another study may have done it since we looked.
        known = _find_known(trial, root)
        if known is None:
            left.append(trial)
        else:
            take(known)
    if not left:
        return
    places = Places.choose(
        len(left),
        jobs=options.jobs,
        processors=count_processors(),
        devices=list_devices(os.environ),
        inherited=os.environ,
    )
    with open_display([trial.name for trial in left], quiet=options.quiet) as shown:
        run_trials(left, root, places=places, shown=shown, finished=take)


def _conclude(
    study: Study, outcomes: Sequence[TrialOutcome], target: Path, tracker: StudyTracker
) -> StudyReport:
    spec = study.variants[0].spec
    summary = summarize_study(study.variants, outcomes, against=study.against)
    recommendation = recommend_variant(summary.rows, summary.samples, confidence=spec.gate.confidence)
    target.mkdir(parents=True, exist_ok=True)
    plot = target / PLOT_NAME if summary.reference is not None else None
    if plot is not None:
        plot_study(
            plot,
            summary,
            title=f"{study.task}: {study.name}",
            chosen=recommendation.label if recommendation else None,
            by_parameters=study.by_parameters,
        )
    findings = describe_spreads(summary.rows) if study.name == "prompts" else []
    report = StudyReport(
        study,
        summary,
        recommendation,
        outcomes,
        results=target / RESULTS_NAME,
        plot=plot,
        notes=[*study.notes, *findings],
    )
    replace_file(report.results, json.dumps(_describe(report), indent=2, ensure_ascii=False))
    values = {f"test/{row.variant.label}": row.estimate.value for row in summary.rows if row.estimate}
    tracker.close([report.results, *([plot] if plot else [])], values, failed=bool(report.failed))
    return report


def _describe(report: StudyReport) -> dict[str, Any]:
    study, chosen = report.study, report.recommendation
    return {
        "study": study.name,
        "task": study.task,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "metric": report.summary.metric,
        "test_rows": report.summary.test_rows,
        "compared_with": report.summary.reference,
        "published_source": find_source(study.name),
        "notes": list(report.notes),
        "recommendation": {"label": chosen.label, "section": chosen.section, "reason": chosen.reason}
        if chosen
        else None,
        "rows": report.describe_rows(),
    }
