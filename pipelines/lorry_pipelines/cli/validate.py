"""``lorry validate``: what is wrong with a task file and its data, without running it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorry_pipelines.cli.task_options import files_argument, overrides_option
from lorry_registry.cli.edge import (
    fail_after,
    format_examples,
    json_option,
    load_settings,
    print_json,
    print_warning,
)
from lorry_registry.cli.prose import print_prose

if TYPE_CHECKING:
    from lorry_pipelines.data_review import DataReview
    from lorry_registry.tasks.task_spec import TaskSpec


def _print_schema(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from lorry_components.tasks.json_schema import describe_task_file

        print_json(describe_task_file())
        context.exit()


@click.command(
    epilog=format_examples(
        "lorry validate tasks/*.yaml",
        "lorry validate reviews.yaml --set train.epochs=5",
        "lorry validate reviews.yaml --no-data     the file alone, where its data are not",
        "lorry validate --schema > tasks/task.schema.json",
    )
)
@files_argument
@overrides_option
@click.option("--no-data", "skips_data", is_flag=True, help="Do not read the data.")
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of the task file, and exit.",
)
@json_option
def validate_tasks(
    files: tuple[Path, ...], overrides: tuple[str, ...], skips_data: bool, as_json: bool
) -> None:
    """Check task files and their data without running them.

    All faults of all files are reported at once, with file, line and field. If the base is on this machine,
    the method is checked against it too. Data on this machine's disk are read, divided and checked as a run
    does it, and warnings of a run are given. The exit code is 3 if a file has faults, and 4 if data
    have.
    """
    from lorry_components.process_setup import quiet_libraries
    from lorry_components.tasks.base_checks import check_bases
    from lorry_components.tasks.passed_checks import PassedChecks
    from lorry_components.tasks.resolution import resolve_task
    from lorry_pipelines.data_review import review_data
    from lorry_pipelines.scheduling import load_tasks

    quiet_libraries()
    settings = load_settings()
    specs = load_tasks(files, overrides, bases=settings.base_place)
    check_bases(specs, PassedChecks(settings.passed_checks))
    reviews, problems = review_data(() if skips_data else map(resolve_task, specs))
    if as_json:
        # The documents as they are: a pipeline takes them as its tasks.
        if not problems:
            print_json([spec.model_dump(mode="json") for spec in specs])
        for name, review in reviews.items():
            for warning in review.warnings:
                print_warning(f"{name}: {warning}")
    else:
        for path, spec in zip(files, specs, strict=True):
            if spec.name not in problems:
                _print_task(path, spec, reviews.get(spec.name))
    fail_after(problems)


def _print_task(path: Path, spec: "TaskSpec", review: "DataReview | None") -> None:
    print_prose(f"{path}: {spec.name}, {spec.kind} with {spec.method.name} on {spec.base.model}: valid")
    if spec.base.is_folder and not Path(spec.base.model).is_dir():
        print_prose("  base: not on this machine, so the method was not checked against it")
    if review is None:
        click.echo("  data: not read")
        return
    print_prose(f"  data: {review}")
    for warning in review.warnings:
        print_prose(f"  warning: {warning}")
