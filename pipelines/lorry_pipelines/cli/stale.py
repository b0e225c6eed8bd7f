"""``lorry stale``: which tasks are out of date, and what changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lorry_pipelines.cli.task_options import complete_tasks_or_files
from lorry_registry.cli.edge import (
    fail_after,
    format_examples,
    json_option,
    load_settings,
    print_json,
)
from lorry_registry.cli.prose import print_line, print_prose
from lorry_registry.cli.tables import NOTHING, Column, print_table
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.registry import Registry

if TYPE_CHECKING:
    from lorry_components.tasks.inspection import Inspection
    from lorry_pipelines.retraining.inspecting import Inspections

EXIT_STALE = 20
"""The exit code where a task is out of date; all others are those of errors."""

_COLUMNS = (
    Column("Task"),
    Column("Champion"),
    Column("State"),
    Column("What changed, or why not", wraps=True),
)


@click.command(
    epilog=format_examples(
        "lorry stale                      all tasks in tasks/",
        "lorry stale reviews              the task of this name",
        "lorry stale tasks/*.yaml --json  for machines",
        "lorry stale || lorry retrain     retrain if something is out of date",
    )
)
@click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=complete_tasks_or_files)
@click.option(
    "--no-rows", "skips_rows", is_flag=True, help="Do not read data that moved; tell them by digests."
)
@json_option
def find_stale(tasks: tuple[str, ...], skips_rows: bool, as_json: bool) -> None:
    """Say which tasks are out of date, and why.

    Compares each task with its champion: base, data, recipe with all defaults, and the versions of the code
    that trains. A TASK is a file, a folder of files, or the name of a task in tasks/ or of NAME.yaml; without
    any, all files in tasks/ are meant. Data that have not moved are not read; of those that have, rows are
    counted. Owner, description and gate make nothing stale, and a version that was rolled back is not asked
    for again.

    Exit codes: 0 nothing is to be done; 20 a task is to be trained or judged, or its inputs have drifted; all
    others as everywhere.
    """
    from lorry_components.data.object_cache import ObjectCache
    from lorry_components.process_setup import quiet_libraries
    from lorry_components.tasks.resolution import resolve_task
    from lorry_pipelines.retraining.inspecting import inspect_tasks
    from lorry_pipelines.scheduling import load_tasks
    from lorry_pipelines.task_files import find_task_files, name_task_file

    quiet_libraries()
    settings = load_settings()
    files = find_task_files(tasks, Path.cwd())
    specs = load_tasks(files, bases=settings.base_place)
    digest = DigestCache(settings.digests).digest_file
    inspections = inspect_tasks(
        [resolve_task(spec, digest=digest) for spec in specs],
        Registry.open(settings),
        reads_rows=not skips_rows,
        cache=ObjectCache(settings.cache / "images", limit=settings.cache_bytes),
    )
    if as_json:
        print_json(_describe(inspections))
    else:
        names = {
            spec.name: name_task_file(spec.name, path, Path.cwd())
            for spec, path in zip(specs, files, strict=True)
        }
        _print(inspections, names)
    fail_after(inspections.problems)
    if any(inspection.is_stale for inspection in inspections.found.values()):
        click.get_current_context().exit(EXIT_STALE)


def _describe(inspections: "Inspections") -> list[dict[str, Any]]:
    from lorry_pipelines.retraining.inspecting import describe_inspection

    return [
        *map(describe_inspection, inspections.found.values()),
        *(
            {"task": task, "state": "unknown", "stale": None, "reason": str(problem)}
            for task, problem in inspections.problems.items()
        ),
    ]


def _print(inspections: "Inspections", names: Mapping[str, str]) -> None:
    print_table(_COLUMNS, [_format_row(inspection) for inspection in inspections.found.values()])
    for inspection in inspections.found.values():
        for note in inspection.notes:
            print_prose(f"{inspection.task}: {note}")
    stale = [inspection for inspection in inspections.found.values() if inspection.has_work]
    if stale:
        named = " ".join(names[inspection.task] for inspection in stale)
        print_line(f"\n{len(stale)} of {len(inspections.found)} to be done: lorry retrain {named}")


def _format_row(inspection: "Inspection") -> list[str]:
    from lorry_pipelines.retraining.inspecting import tell_changes

    changes = tell_changes(inspection)
    is_listed = inspection.state == "stale" and changes
    return [
        inspection.task,
        f"v{inspection.champion}" if inspection.champion is not None else NOTHING,
        inspection.state,
        "; ".join(changes) if is_listed else inspection.reason,
    ]
