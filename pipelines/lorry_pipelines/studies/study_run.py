"""Runs a comparison from end to end: data once, trials in processes, one table, one plot."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lorry_components.processors import count_processors
from lorry_components.steps.prepare_data.step import load_card, prepare_data
from lorry_components.studies.conditions import find_hardware
from lorry_components.studies.grids import Comparison, Grid
from lorry_components.studies.prompt_grid import describe_spreads
from lorry_components.studies.recommendation import Recommendation, recommend_variant
from lorry_components.studies.study_plot import plot_study
from lorry_components.studies.study_summary import StudySummary, TrialOutcome, summarize_study
from lorry_components.studies.trials import Part, PreparedData, Trial, lay_out_trials
from lorry_components.studies.variants import Variant
from lorry_components.tasks.definition import find_task_type
from lorry_components.tasks.resolution import ResolvedTask, resolve_task
from lorry_pipelines.local.display import open_display
from lorry_pipelines.local.launch import report_disk
from lorry_pipelines.local.locking import hold_tasks
from lorry_pipelines.scheduling import refuse_what_does_not_fit
from lorry_pipelines.studies.study_tracking import StudyTracker
from lorry_pipelines.studies.trial_processes import Places, list_devices, run_trials
from lorry_registry.errors import Fault, InvalidTaskError, LorryError, NotFoundError
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.files.digests import DigestFile, digest_document, shorten_digest
from lorry_registry.files.file_locks import read_holder, take_lock
from lorry_registry.ledger.registry_identity import read_id
from lorry_registry.mlflow.index import MlflowIndex
from lorry_registry.mlflow.network import BRIEF
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings
from lorry_registry.stores import open_store
from lorry_registry.tasks.task_spec import TaskSpec

RESULTS_NAME, PLOT_NAME = "results.json", "plot.png"


@dataclass(frozen=True, slots=True)
class Study:
    """A comparison and its seeds.

    Attributes:
        comparison: What is compared.
        seeds: The seeds of each row.
    """

    comparison: Comparison
    seeds: Sequence[int]

    @property
    def name(self) -> str:
        """``compare``, or what the grid varies: ``compare-r``."""
        return f"compare-{self.grid.name}" if self.grid else "compare"

    @property
    def variants(self) -> Sequence[Variant]:
        """The rows."""
        return self.comparison.variants

    @property
    def grid(self) -> Grid | None:
        """What is varied beside the methods; None: nothing."""
        return self.comparison.grid

    @property
    def task(self) -> str:
        """The task's name."""
        return self.variants[0].spec.name


@dataclass(frozen=True, slots=True)
class StudyReport:
    """The results of a study.

    Attributes:
        study: What was compared.
        summary: The rows.
        recommendation: The variant to choose; None if none is complete.
        outcomes: The outcome of each trial.
        results: The file that holds all of this.
        plot: The plot; None if no trial is done.
        notes: What a reader needs to know, and what the rows show together.
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
        return [
            row.describe()
            | {
                "metric": self.summary.metric,
                "positive": self.summary.positive,
                "compared_with": self.summary.reference,
                "recommended": row.variant.label == chosen,
            }
            for row in self.summary.rows
        ]


@dataclass(slots=True)
class StudyOptions:
    """How a study is run.

    Attributes:
        environment: The environment that the trials' processes inherit.
        jobs: How many trials run at a time; None: by GPUs or processors.
        output: The folder for results and plot; None means the study's own.
        quiet: Whether no progress is shown.
        force: Whether trials are run whose plan does not fit their resources.
        part: The part of the data that trials are scored on.
        say: Tells the user what goes on, a line at a time.
        warn: Tells the user of what may be wrong.
    """

    environment: Mapping[str, str]
    say: Callable[[str], None]
    warn: Callable[[str], None]
    jobs: int | None = None
    output: Path | None = None
    quiet: bool = False
    force: bool = False
    part: Part = "validation"


def run_study(study: Study, settings: Settings, options: StudyOptions) -> StudyReport:
    """Prepare the data, run the trials that are not done, and summarize them.

    Trials are kept below ``LORRY_HOME/studies`` under a digest of everything that decides their result:
    another study of the same task reuses them, and an interrupted one continues from their checkpoints.

    Raises:
        BaseModelError: The base is not usable.
        ConflictError: The same study is already running.
        InvalidDataError: The data cannot be used.
        InvalidTaskError: A plan does not fit the task's resources.
        StoreError: A file cannot be written.
    """
    if not options.force:
        _refuse_misfits(study.variants)
    root = settings.home / "studies"
    with report_disk(settings.home):
        trials = _lay_out(study, root, DigestCache(settings.digests).digest_file, options)
        folder = _name_folder(root, study, trials)
        # Of a trial that two studies share, one trains and the other waits; the same study runs only once.
        with hold_tasks(settings.locks, [folder.name]):
            folder.mkdir(parents=True, exist_ok=True)
            tracker = StudyTracker(
                MlflowIndex(settings.tracking_uri, limits=BRIEF),
                task=study.task,
                study=study.name,
                folder=folder,
                warn=options.warn,
                find_registry=lambda: read_id(open_store(settings.store, settings.s3)),
            )
            outcomes = _run(study, trials, root / "cells", tracker, options)
            champion = _find_champion(study.variants[0].spec, settings)
            return _conclude(study, outcomes, options.output or folder, tracker, champion)


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


def _lay_out(study: Study, root: Path, digest: DigestFile, options: StudyOptions) -> list[Trial]:
    base = resolve_task(study.variants[0].spec, digest=digest).base
    prepared: dict[str, PreparedData] = {}
    data: dict[str, PreparedData] = {}
    for variant in study.variants:
        task = resolve_task(variant.spec, digest=digest)
        key = _digest_data(task, base.identity.fingerprint)
        if key not in prepared:
            prepared[key] = _prepare(task, base.folder, root / "data" / shorten_digest(key, 32))
        data[variant.label] = prepared[key]
    for warning in dict.fromkeys(warning for each in prepared.values() for warning in each.warnings):
        options.warn(f"{study.task}: {warning}")
    return lay_out_trials(
        study.variants,
        study.seeds,
        data=data,
        part=options.part,
        fingerprint=base.identity.fingerprint,
        hardware=find_hardware(),
    )


def _digest_data(task: ResolvedTask, fingerprint: str) -> str:
    spec = task.spec
    return digest_document(
        {
            # The data card warns about lengths in its tokens.
            "base": fingerprint,
            "task": spec.name,
            "kind": spec.kind,
            "data": spec.data.model_dump(mode="json"),
            "source": task.source_digest,
        }
    )


def _prepare(task: ResolvedTask, base: Path, folder: Path) -> PreparedData:
    with contextlib.ExitStack() as locks:
        # Another study may be preparing the same rows.
        take_lock(locks, folder.with_name(f"{folder.name}.lock"), waits=True)
        try:
            card = load_card(folder)
        except NotFoundError:
            card = prepare_data(task, folder, base=base)
    return PreparedData(folder, card.data_digest, tuple(card.warnings))


def _find_known(trial: Trial, root: Path) -> TrialOutcome | None:
    folder = trial.open(root)
    result = folder.read_result()
    return TrialOutcome(trial, folder, result, is_known=True) if result is not None else None


def _name_folder(root: Path, study: Study, trials: Sequence[Trial]) -> Path:
    identity = {
        "study": study.name,
        "cells": [trial.digest for trial in trials],
        "against": study.comparison.against,
    }
    return root / f"{study.name}-{study.task}-{shorten_digest(digest_document(identity), 8)}"


def _run(
    study: Study, trials: Sequence[Trial], root: Path, tracker: StudyTracker, options: StudyOptions
) -> list[TrialOutcome]:
    """Run the trials that are not done, each digest once; its outcome is that of all trials with it."""
    first: dict[str, Trial] = {}
    for trial in trials:
        first.setdefault(trial.digest, trial)
    outcomes = {digest: known for digest, trial in first.items() if (known := _find_known(trial, root))}
    waiting = [trial for trial in first.values() if trial.digest not in outcomes]
    if not options.quiet:
        taken = f", {len(outcomes)} of them done before" if outcomes else ""
        options.say(f"{study.task}: {len(first)} trials{taken}; files: {root.parent}")
    if waiting or not tracker.has_all(outcomes):
        tracker.open(
            {"study": study.name, "seeds": list(study.seeds), "cells": len(first), "part": options.part}
        )
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
        options.say(
            f"{done} of {len(first)} trials are done; they are kept, and the checkpoints of the "
            "others: the same command continues from there"
        )
        raise
    return [replace(outcomes[trial.digest], trial=trial) for trial in trials]


def _run_waiting(
    waiting: Sequence[Trial], root: Path, options: StudyOptions, take: Callable[[TrialOutcome], None]
) -> None:
    """Run trials; those that another study is running come last, and are then taken from it."""
    while waiting:
        with contextlib.ExitStack() as locks:
            mine = [trial for trial in waiting if take_lock(locks, trial.open(root).lock)]
            if not mine:
                # No lock is held here, so that two studies never wait for each other.
                lock = waiting[0].open(root).lock
                options.say(
                    f"{waiting[0].name}: another study is running it (process {read_holder(lock)}); waiting"
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
        # Another study may have finished it since the first look.
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
        processors=count_processors(options.environment),
        devices=list_devices(options.environment),
        inherited=options.environment,
    )
    with open_display([trial.name for trial in left], quiet=options.quiet) as shown:
        run_trials(left, root, places=places, shown=shown, finished=take)


def _find_champion(spec: TaskSpec, settings: Settings) -> tuple[str, float] | None:
    """Return the champion of a study's task, for its picture: a name and the metric as registered."""
    try:
        resolution = Registry.open(settings).resolve(spec.name)
    except LorryError:
        # A study needs no store, and a task may have no champion yet.
        return None
    evaluation = resolution.manifest.evaluation
    found = evaluation.metrics.get(spec.evaluate.primary or find_task_type(spec).primary)
    return (
        (f"champion v{resolution.version} on test, as registered", found.value) if found is not None else None
    )


def _conclude(
    study: Study,
    outcomes: Sequence[TrialOutcome],
    target: Path,
    tracker: StudyTracker,
    champion: tuple[str, float] | None,
) -> StudyReport:
    summary = summarize_study(study.variants, outcomes, against=study.comparison.against)
    recommendation = recommend_variant(summary)
    target.mkdir(parents=True, exist_ok=True)
    plot = target / PLOT_NAME if summary.reference is not None else None
    if plot is not None:
        plot_study(
            plot,
            summary,
            title=f"{study.task}: {study.name}",
            chosen=recommendation.label if recommendation else None,
            grid=study.grid,
            champion=champion,
        )
    findings = describe_spreads(summary.rows) if study.grid and study.grid.name == "template" else []
    report = StudyReport(
        study,
        summary,
        recommendation,
        outcomes,
        results=target / RESULTS_NAME,
        plot=plot,
        notes=[*study.comparison.notes, *findings],
    )
    document = json.dumps(_describe(report), indent=2, ensure_ascii=False)
    write_whole_text(report.results, f"{document}\n")
    values = {f"study/{row.variant.label}": row.estimate.value for row in summary.rows if row.estimate}
    tracker.close(
        [report.results, *([plot] if plot else [])],
        values,
        failed=bool(report.failed),
        recommendation=recommendation,
    )
    return report


def _describe(report: StudyReport) -> dict[str, Any]:
    study, chosen = report.study, report.recommendation
    return {
        "study": study.name,
        "task": study.task,
        "grid": {study.grid.name: list(study.grid.values)} if study.grid else None,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "metric": report.summary.metric,
        "positive": report.summary.positive,
        "part": report.summary.part,
        "examples": report.summary.examples,
        "compared_with": report.summary.reference,
        "notes": list(report.notes),
        "recommendation": {"label": chosen.label, "section": chosen.section, "reason": chosen.reason}
        if chosen
        else None,
        "rows": report.describe_rows(),
    }
