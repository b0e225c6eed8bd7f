"""The end of a run: a table with a row for each task, and what to try next."""

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from lorry_components.steps.report.report_reading import read_task
from lorry_components.steps.report.step import TaskReport
from lorry_components.steps.report.validation_gap import describe_validation_gap
from lorry_components.steps.report.wording import list_reasons
from lorry_components.steps.runtime.outcomes import STEPS
from lorry_pipelines.cli.collapse_advice import advise_after_collapse
from lorry_pipelines.scheduling import PlannedTask
from lorry_registry.cli.prose import print_line, print_prose
from lorry_registry.cli.tables import Column, print_table
from lorry_registry.ledger.ledger import TaskState
from lorry_registry.ledger.promotion import list_versions
from lorry_registry.manifest import Manifest
from lorry_registry.mlflow.connection import MlflowConnection
from lorry_registry.mlflow.page_addresses import LOCAL_ADDRESS, TrainingsPage, is_server, locate_trainings
from lorry_registry.records.adapter_names import label_method
from lorry_registry.records.probe_description import describe_linear_probe
from lorry_registry.registry import Registry
from lorry_registry.stores.concurrency import map_concurrent
from lorry_registry.text.sizes import format_size
from lorry_registry.text.sqlite_addresses import name_database

_COLUMNS = (
    Column("Task"),
    Column("Version"),
    Column("Method", rank=5),
    Column("Trained", justify="right", rank=7),
    Column("Adapter", justify="right", rank=8),
    Column("Metric", rank=1),
    Column("Test", justify="right"),
    Column("95 % interval", rank=4),
    Column("Baseline", justify="right", rank=2),
    Column("Published", justify="right", rank=3, is_optional=True),
    Column("Seconds", justify="right", rank=6),
    Column("Outcome"),
)
# The outcomes of tasks for which there was nothing to do; a challenger may be a new one as well.
_IDLE = frozenset({"current", "challenger", "rolled back", "former champion"})


def describe_tasks(
    planned: Sequence[PlannedTask], reports: Mapping[str, TaskReport], registry: Registry
) -> list[dict[str, Any]]:
    """Return the outcome of each task as plain values, in the order in which tasks were given."""

    def describe(plan: PlannedTask) -> dict[str, Any]:
        return _describe_task(plan, reports.get(plan.spec.name), registry)

    return list(map_concurrent(describe, planned, registry.store.concurrency))


def _describe_task(plan: PlannedTask, report: TaskReport | None, registry: Registry) -> dict[str, Any]:
    state = registry.ledger.read_state(plan.spec.name)
    facts = read_task(report) if report else None
    version, adapter_id = _find_version(plan, report, registry, state)
    row: dict[str, Any] = {
        "task": plan.spec.name,
        "kind": plan.spec.kind,
        "outcome": report.status if report else _name_outcome(plan),
        "reason": report.reason if report else plan.staleness.reason,
        "reasons": list(list_reasons(facts)) if facts else [],
        "beside_champion": facts.gain.value if facts and facts.gain else None,
        "step": report.step if report else None,
        "version": version,
        "adapter_id": adapter_id,
        "champion": state.champion_version,
        "seconds": sum(report.seconds.values()) if report else None,
        "train_seconds": report.details.get("finetune", {}).get("train_seconds") if report else None,
        "published": plan.spec.evaluate.reference.value if plan.spec.evaluate.reference else None,
        "source": plan.spec.evaluate.reference.source if plan.spec.evaluate.reference else None,
        "single_answer": report.details.get("evaluate", {}).get("single_answer") if report else None,
        "advice": _advise(plan, report) if report else None,
        "data_warnings": report.details.get("prepare_data", {}).get("warnings", []) if report else [],
        "example": report.details.get("evaluate", {}).get("example") if report else None,
        "validation_gap": (describe_validation_gap(report.details) or None) if report else None,
        "has_pair": plan.spec.data.columns.text_pair is not None,
        "mlflow_run": report.details.get("finetune", {}).get("mlflow_run_id") if report else None,
        "mlflow_url": report.details.get("finetune", {}).get("mlflow_url") if report else None,
    }
    return row | (_describe_manifest(registry.read_manifest(adapter_id)) if adapter_id else {})


def _advise(plan: PlannedTask, report: TaskReport) -> str | None:
    trained = report.details.get("finetune", {})
    # What kept its beginning answers as the fitted head does, no matter what its steps led to.
    if report.details.get("evaluate", {}).get("single_answer") is None or trained.get("kept_start"):
        return None
    rows = report.details.get("prepare_data", {}).get("rows", {})
    return advise_after_collapse(
        plan.spec.train,
        steps=trained.get("steps"),
        rows=rows.get("train"),
        rate=trained.get("learning_rate"),
    )


def _name_outcome(plan: PlannedTask) -> str:
    if plan.staleness.retired:
        # Another version is in use: what was trained is there, and is not what users get.
        return plan.staleness.retired
    # With a refused version a task may have no champion at all: that is not up to date.
    return "challenger" if plan.staleness.is_refused else "current"


def _find_version(
    plan: PlannedTask, report: TaskReport | None, registry: Registry, state: TaskState
) -> tuple[int | None, str | None]:
    if report is None or report.step == STEPS[0]:
        # The step has read the rows, and may know better.
        known = report.details.get(STEPS[0], {}).get("version") if report is not None else None
        number = known or plan.staleness.version
        if number is None:
            return None, None
        versions = list_versions(registry.ledger.read_events(state))
        return number, next((one.adapter_id for one in versions if one.number == number), None)
    registered = report.details.get("register", {})
    return registered.get("version"), registered.get("adapter_id")


def _describe_manifest(manifest: Manifest) -> dict[str, Any]:
    headline, probe = manifest.evaluation.headline, manifest.evaluation.linear_probe
    return {
        "method": manifest.method,
        "trained_parameters": manifest.parameters.trained,
        "size_bytes": manifest.size_bytes,
        "metric": manifest.evaluation.primary,
        "metric_title": manifest.evaluation.name_metric(manifest.evaluation.primary),
        "value": headline.value,
        "interval": [headline.low, headline.high],
        "baselines": [baseline.model_dump(mode="json") for baseline in manifest.evaluation.baselines],
        "linear_probe": probe.model_dump(mode="json") if probe is not None else None,
        "beside_probe": describe_linear_probe(label_method(manifest.recipe), manifest.evaluation),
    }


def print_summary(
    rows: Sequence[Mapping[str, Any]],
    *,
    seconds: float,
    tracking_uri: str,
    find_trainings: Callable[[str], TrainingsPage | None] | None = None,
) -> None:
    """Print the table, what was left unchanged and why, and the next commands to try.

    Args:
        rows: The outcome of each task.
        seconds: How long the run took.
        tracking_uri: Where MLflow is.
        find_trainings: Returns MLflow's page of a task's trainings, or None if that is not known; without it
            MLflow is not asked.
    """
    click.echo()
    print_table(_COLUMNS, [_format_row(row) for row in rows])
    sources = dict.fromkeys(row["source"] for row in rows if row["source"])
    for source in sources:
        print_prose(f"published: {source}")
    best = filter(None, map(_find_best_baseline, rows))
    names = list(dict.fromkeys(str(baseline["name"]) for baseline in best))
    if names:
        print_prose(f"baseline: trivial ({', '.join(names)})")
    kept = [row for row in rows if row["outcome"] in _IDLE and not _has_worked(row)]
    if kept:
        click.echo("\nNot trained again:")
        for row in kept:
            print_prose(f"  {row['task']}: {row['reason']}")
    for row in rows:
        if row["outcome"] == "unchanged":
            print_prose(f"\n{row['task']} v{row['version']} is unchanged: {row['reason']}")
    _print_refused([row for row in rows if row["outcome"] == "challenger"])
    for row in rows:
        if row["single_answer"] is not None:
            print_prose(
                f"\nnote: {row['task']} v{row['version']} answers every test row with "
                f"{row['single_answer']!r}; {row['advice']}"
            )
    for row in rows:
        for warning in filter(None, (*row["data_warnings"], row.get("validation_gap"))):
            print_prose(f"\nwarning: {row['task']}: {warning}")
    _print_probes(rows)
    print_line(f"\n{len(rows)} task{'' if len(rows) == 1 else 's'} in {seconds:.0f} s")
    usable = [row for row in rows if row["champion"] is not None]
    if usable:
        task = usable[-1]["task"]
        _print_next(usable[-1], tracking_uri, find_trainings(task) if find_trainings is not None else None)


def _print_refused(refused: Sequence[Mapping[str, Any]]) -> None:
    for row in refused:
        if _has_worked(row):
            figure = f" with {row['metric_title']} {row['value']:.3f}" if row.get("value") is not None else ""
            champion, value = row["champion"], row.get("beside_champion")
            beside = f", champion v{champion}" if champion is not None else ""
            beside += f" with {value:.3f}" if beside and value is not None else ""
            print_prose(f"\nNot promoted: {row['task']} v{row['version']}{figure}{beside}")
            for reason in row.get("reasons") or [row["reason"]]:
                print_prose(f"  {reason}")
    for row in refused:
        if row["champion"] is None:
            print_prose(
                f"\n{row['task']} has no champion, so that lorry predict and lorry pull find nothing; "
                f"to use v{row['version']} all the same: lorry promote {row['task']} v{row['version']} "
                "--reason ..."
            )


def _has_worked(row: Mapping[str, Any]) -> bool:
    return row["outcome"] != "current" and row["step"] not in (None, STEPS[0])


def _find_best_baseline(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    baselines: Sequence[Mapping[str, Any]] = row.get("baselines") or ()
    return max(baselines, key=lambda baseline: float(baseline["value"]), default=None)


def _print_probes(rows: Sequence[Mapping[str, Any]]) -> None:
    """Say how new adapters stand beside a linear probe."""
    shown = [row for row in rows if row.get("beside_probe") and row["outcome"] in ("promoted", "challenger")]
    if shown:
        click.echo("\nBeside a linear probe:")
    for row in shown:
        print_prose(f"  {row['task']} v{row['version']}: {row['beside_probe']}")


def _format_row(row: Mapping[str, Any]) -> list[str]:
    value = row.get("value")
    low, high = row.get("interval") or (None, None)
    published = row["published"]
    baseline = _find_best_baseline(row)
    return [
        row["task"],
        f"v{row['version']}" if row["version"] else "-",
        row.get("method", "-"),
        f"{row['trained_parameters']:,}" if value is not None else "-",
        format_size(row["size_bytes"], compact=True) if value is not None else "-",
        row.get("metric_title", "-"),
        f"{value:.3f}" if value is not None else "-",
        f"{low:.3f} to {high:.3f}" if value is not None else "-",
        f"{baseline['value']:.3f}" if baseline is not None else "-",
        f"{published:.3f}" if published is not None else "-",
        f"{row['seconds']:.0f}" if row["seconds"] is not None else "-",
        row["outcome"] if row["outcome"] != "failed" else f"failed in {row['step']}",
    ]


def _print_next(row: Mapping[str, Any], tracking_uri: str, trainings: TrainingsPage | None) -> None:
    task = row["task"]
    lorry = _name_program("lorry")
    click.echo("\nNext:")
    print_line(f"  {lorry} predict {task} {_choose_example(row)}")
    print_line(f"  {lorry} show {task}")
    for line in _list_mlflow_lines(tracking_uri, trainings):
        print_line(f"  {line}")


def _list_mlflow_lines(tracking_uri: str, trainings: TrainingsPage | None) -> list[str]:
    """Return how to look at the trainings in MLflow: the page, and for a database what starts the pages."""
    connection = MlflowConnection(tracking_uri)
    server = connection.public_address if is_server(tracking_uri) else LOCAL_ADDRESS
    page = [locate_trainings(server, trainings)] if trainings is not None else []
    if is_server(tracking_uri):
        return page or [server]
    if not connection.is_database:
        return []
    database = connection.database_file
    # The address of another database may hold a password, which belongs on no terminal.
    address = (
        shlex.quote(name_database(Path(_shorten(database))))
        if database is not None
        else '"$MLFLOW_TRACKING_URI"'
    )
    return [f"{_name_program('mlflow')} ui --backend-store-uri {address}", *page]


def _choose_example(row: Mapping[str, Any]) -> str:
    """Return arguments of ``lorry predict``: a test row of the task, or where one is to be typed."""
    example = row.get("example") or {"text": "...", "text_pair": "..."}
    pair = f" --pair {_quote(example['text_pair'])}" if row["has_pair"] else ""
    return f"{_quote(example['text'])}{pair}"


def _quote(text: str) -> str:
    """Return a text as one word of a shell, in double quotes where these suffice."""
    return shlex.quote(text) if re.search(r'["$`\\!]', text) else f'"{text}"'


def _name_program(name: str) -> str:
    """Return how to call a program of this environment: by its name alone if that is on the PATH."""
    path = Path(sys.executable).with_name(name)
    on_path = shutil.which(name)
    return name if on_path and Path(on_path).resolve() == path.resolve() else _shorten(path)


def _shorten(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
