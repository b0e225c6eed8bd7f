"""``lorry compare``: methods and their options on one task, the same data and seeds."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorry_pipelines.cli.compare_table import show_study
from lorry_pipelines.cli.task_options import overrides_option
from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    load_settings,
    print_warning,
    read_environment,
)
from lorry_registry.errors import UsageError

if TYPE_CHECKING:
    from lorry_components.studies.trials import Part
    from lorry_components.studies.variants import Variant

_MOST = 2**32


@click.command(
    epilog=format_examples(
        "lorry compare reviews.yaml --methods full,bitfit,lora",
        "lorry compare reviews.yaml --methods 'lora:r=16;targets=[query,value],lora:r=2' --seeds 0,1,2",
        "lorry compare reviews.yaml --methods full:train.learning_rate=3e-5,lora --against full",
        "lorry compare reviews.yaml --grid r=1,2,4,8,64             the ranks of LoRA",
        "lorry compare reviews.yaml --grid targets=q,k,v,o,qv,qkvo  the matrices of attention",
        "lorry compare facts.yaml --grid template=@wordings.txt     prompts, untrained and with P-tuning",
    )
)
@click.argument("file", metavar="TASK.yaml", type=click.Path(path_type=Path))
@click.option(
    "--methods",
    metavar="NAME[:OPTION=VALUE;...],...",
    help="What to compare. A method's options follow a colon, separated by semicolons; train.FIELD=VALUE "
    "changes a field of the train section for it.  [default: with --grid, lora, or p-tuning for prompts]",
)
@click.option(
    "--grid",
    metavar="NAME=VALUE,...",
    help="Train each method once with each value of an option or of train.FIELD. targets takes letters of "
    "attention's projections, such as q,qv,qkvo, and gives each the rank that the same number of parameters "
    "allows; template takes prompts, or @FILE with one a line, and also scores each on the untrained base.",
)
@click.option(
    "--against",
    metavar="METHOD",
    help="The method that all are compared with, as written in --methods.  [default: the best]",
)
@click.option(
    "--probe/--no-probe",
    "with_probe",
    default=True,
    help="Whether the linear probe is compared as well, where the task has one and there is no --grid.  "
    "[default: --probe]",
)
@click.option(
    "--seeds", metavar="N,N,...", help="Train all once with each of these seeds.  [default: the task's]"
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Trainings at a time.  [default: one per GPU, or else one per processor, at most 4]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write results.json and plot.png there.  [default: below LORRY_HOME/studies]",
)
@click.option(
    "--part",
    type=click.Choice(["validation", "test"]),
    default="validation",
    show_default=True,
    help="The rows that are scored. What is chosen by test rows looks better on them than it is.",
)
@click.option("--force", is_flag=True, help="Also train what does not fit the task's resources.")
@overrides_option
@json_option
def compare_methods(
    file: Path,
    methods: str | None,
    grid: str | None,
    against: str | None,
    with_probe: bool,
    seeds: str | None,
    jobs: int | None,
    output: Path | None,
    part: "Part",
    force: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare methods, or values of an option, on a task: the same data, the same seeds.

    The task's own method section applies to the method that it names; others get their defaults, including
    their learning rate. The linear probe, which is fitted in seconds, is compared with them where the task
    has a head. All are scored on the same validation rows, with intervals and paired differences, so that the
    test rows can judge what is chosen. It ends in a table, a plot, and a section to paste into the task file:
    the smallest choice that is not significantly below the best. Nothing is registered. Results are kept: an
    interrupted comparison continues when it is started again, and another one reuses the trainings that both
    have. The exit code is 12 if a training failed.
    """
    if methods is None and grid is None:
        raise UsageError(
            "give --methods, --grid or both", where="lorry compare", todo="see: lorry compare --help"
        )
    numbers = _parse_seeds(seeds) if seeds is not None else None
    from lorry_components.process_setup import ease_garbage_collection, quiet_libraries
    from lorry_components.studies.grids import lay_out_comparison
    from lorry_components.studies.variants import TaskDocument
    from lorry_pipelines.studies.study_run import Study, StudyOptions, run_study

    quiet_libraries()
    ease_garbage_collection()
    settings = load_settings()
    task = TaskDocument.load(file, overrides, bases=settings.base_place)
    comparison = lay_out_comparison(task, methods, grid=grid, against=against, with_probe=with_probe)
    for note in _list_expectations(comparison.variants):
        click.echo(f"note: {note}", err=True)
    study = Study(comparison, numbers or [comparison.variants[0].spec.train.seed])
    options = StudyOptions(
        environment=read_environment(),
        say=functools.partial(click.echo, err=True),
        warn=print_warning,
        jobs=jobs,
        output=output,
        quiet=as_json,
        force=force,
        part=part,
    )
    show_study(run_study(study, settings, options), as_json=as_json)


def _parse_seeds(text: str) -> list[int]:
    where = "--seeds"
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a list of whole numbers", where=where, todo="write 0,1,2"
        ) from error
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"{text!r} names a number twice", where=where, todo="name each once")
    if not all(0 <= number < _MOST for number in numbers):
        raise UsageError(f"{text!r} holds a number out of range", where=where, todo="write 0 or more")
    return numbers


def _list_expectations(variants: "Sequence[Variant]") -> list[str]:
    """Return what is known of methods that do not suit a base of this size, each once."""
    from lorry_components.memory.expectations import describe_expectation
    from lorry_components.models.configuration import read_configuration

    read_base = functools.partial(read_configuration, variants[0].spec.base)
    notes = (describe_expectation(variant.spec, read_base) for variant in variants)
    return [*filter(None, dict.fromkeys(notes))]
