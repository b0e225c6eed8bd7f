"""``lorry drift``: whether new inputs are still like the rows that a task was learned from."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lorry_registry.cli.edge import (
    complete_tasks,
    format_examples,
    json_option,
    load_settings,
    print_json,
)
from lorry_registry.cli.prose import print_line
from lorry_registry.cli.tables import Column, print_table
from lorry_registry.errors import UsageError
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.registry import Registry

if TYPE_CHECKING:
    from lorry_components.drift import DriftReport
    from lorry_components.drift.comparison import Embed
    from lorry_components.tasks.resolution import ResolvedTask
    from lorry_registry.settings import Settings
    from lorry_registry.tasks.task_spec import TaskSpec

EXIT_DRIFTED = 20
"""The exit code where inputs have drifted, as where a task is stale; all others are those of errors."""

_COLUMNS = (
    Column("What"),
    Column("Training rows", wraps=True),
    Column("New inputs", wraps=True),
    Column("p", "right"),
    Column("Shifted"),
)


@click.command(
    "drift",
    epilog=format_examples(
        "lorry drift reviews --data inputs/reviews.csv   the task of this name in tasks/",
        "lorry drift tasks/reviews.yaml --data new.jsonl --json",
    ),
)
@click.argument("task", metavar="TASK", shell_complete=complete_tasks)
@click.option(
    "--data",
    "inputs",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="New inputs with the task's columns; labels may be missing.",
)
@click.option("--dry-run", is_flag=True, help="Compare, and record nothing for lorry stale.")
@json_option
def find_drift(task: str, inputs: Path, dry_run: bool, as_json: bool) -> None:
    """Say whether new inputs are still like the training rows.

    Compares lengths, words, labels where all inputs have one, and what the frozen base makes of the texts,
    each by a permutation test. If the inputs are like the training rows, a shift is reported in at most 1 %
    of all cases, or what drift.confidence of the task leaves. The finding is kept in the store, where
    lorry stale reads it: a task whose inputs have drifted is stale.

    Exit codes: 0 no shift is sure; 20 the inputs have drifted; all others as everywhere.
    """
    from lorry_components.drift import compare_inputs, read_inputs
    from lorry_components.drift.comparison import Sample
    from lorry_components.process_setup import quiet_libraries
    from lorry_components.tasks.resolution import resolve_task
    from lorry_registry.records.drift_records import DriftRecord, write_drift
    from lorry_registry.tasks.task_spec import DriftSpec

    quiet_libraries()
    settings = load_settings()
    resolved = resolve_task(_load(task, settings), digest=DigestCache(settings.digests).digest_file)
    spec, limits = resolved.spec, resolved.spec.drift or DriftSpec()
    registry = Registry.open(settings)
    champion = registry.resolve(spec.name)
    new = read_inputs(inputs, spec.data.columns, resolved.task_type)
    is_changed = champion.manifest.inputs.source_digest != resolved.source_digest
    report = compare_inputs(
        _read_training_rows(resolved),
        Sample(new.rows, new.labels),
        label_form=resolved.task_type.data_form.label_form,
        confidence=limits.confidence,
        embed=_open_embedding(resolved, settings),
        most_rows=limits.rows,
    )
    record = DriftRecord(
        task=spec.name,
        champion=champion.version,
        adapter_id=champion.adapter_id,
        inputs_digest=new.digest,
        at=datetime.now(UTC),
        has_drifted=report.has_drifted,
        confidence=limits.confidence,
        shifts={test.name: test.p_value for test in report.tests if test.p_value <= report.level},
    )
    if not dry_run:
        write_drift(registry.store, record)
    if as_json:
        print_json(_describe(report, record, is_changed=is_changed))
    else:
        _print(report, spec.name, champion.version, is_changed=is_changed)
        if report.has_drifted:
            print_line(f"more rows like them, with labels, are what helps; then: lorry retrain {task}")
    if report.has_drifted:
        click.get_current_context().exit(EXIT_DRIFTED)


def _load(task: str, settings: "Settings") -> "TaskSpec":
    from lorry_pipelines.scheduling import load_tasks
    from lorry_pipelines.task_files import find_task_files

    files = find_task_files([task], Path.cwd())
    if len(files) > 1:
        raise UsageError(
            f"there are {len(files)} task files, and new inputs belong to one task",
            where=task,
            todo="give the file: lorry drift tasks/NAME.yaml --data FILE",
        )
    (spec,) = load_tasks(files, bases=settings.base_place)
    return spec


def _read_training_rows(task: "ResolvedTask") -> Any:
    from lorry_components.data.checked_source import read_checked
    from lorry_components.drift.comparison import Sample

    examples = read_checked(task.spec.data, task.task_type).parts["train"]
    return Sample([example.row for example in examples], [example.label for example in examples])


def _open_embedding(task: "ResolvedTask", settings: "Settings") -> "Embed | None":
    """Return what the frozen base makes of rows; None: the task type or the base has no vector for a text."""
    from lorry_components.training.probe.feature_cache import FeatureCache
    from lorry_components.training.probe.linear_probe import open_features

    base = task.base
    cache = FeatureCache(settings.features, limit=settings.cache_bytes)
    features = open_features(base, task.task_type.settle(base.folder), task.build_method(), cache)
    return features.compute if features is not None else None


def _describe(report: "DriftReport", record: Any, *, is_changed: bool) -> dict[str, Any]:
    return {
        **record.model_dump(mode="json", exclude={"version"}),
        "data_changed_since": is_changed,
        "report": report.model_dump(mode="json"),
    }


def _print(report: "DriftReport", task: str, version: int, *, is_changed: bool) -> None:
    print_table(
        _COLUMNS,
        [
            (
                test.name,
                test.before or "-",
                test.now or "-",
                f"{test.p_value:.4f}",
                "yes" if test.p_value <= report.level else "no",
            )
            for test in report.tests
        ],
    )
    for name, why in report.left_out.items():
        print_line(f"{name}: not compared, {why}")
    if is_changed:
        print_line(
            f"the data of {task} have changed since v{version} was trained: "
            "this compares with what they are now"
        )
    rows = f"{report.rows_before:,} training rows and {report.rows_now:,} new inputs"
    if not report.has_drifted:
        print_line(f"\n{task}: no shift is sure, from {rows}")
        return
    shifted = " and ".join(test.name for test in report.tests if test.p_value <= report.level)
    print_line(f"\n{task}: the inputs have drifted in {shifted}, from {rows}")
