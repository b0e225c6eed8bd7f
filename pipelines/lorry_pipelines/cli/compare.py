"""``lorry compare``: methods on one task, the same data and seeds."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorry_pipelines.cli.study_options import StudyFlags, parse_numbers, study_flags
from lorry_pipelines.cli.study_tables import show_study
from lorry_pipelines.cli.task_options import overrides_option
from lorry_registry.cli.edge import format_examples, load_settings

if TYPE_CHECKING:
    from lorry_components.studies.variants import Variant


@click.command(
    epilog=format_examples(
        "lorry compare reviews.yaml --methods full,bitfit,lora",
        "lorry compare reviews.yaml --methods 'lora:r=16;targets=[query,value],lora:r=2' --seeds 0,1,2",
        "lorry compare reviews.yaml --methods full:train.learning_rate=3e-5,lora --against full",
    )
)
@click.argument("file", metavar="TASK.yaml", type=click.Path(path_type=Path))
@click.option(
    "--methods",
    required=True,
    metavar="NAME[:OPTION=VALUE;...],...",
    help="What to compare. A method's options follow a colon, separated by semicolons; train.FIELD=VALUE "
    "changes a field of the train section for it.",
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
    help="Whether the linear probe is compared as well, where the task has one.  [default: --probe]",
)
@overrides_option
@study_flags
def compare_methods(
    file: Path,
    methods: str,
    against: str | None,
    with_probe: bool,
    overrides: tuple[str, ...],
    flags: StudyFlags,
) -> None:
    """Compare methods on a task: the same data, the same seeds.

    The task's own method section applies to the method that it names; others get their defaults, including
    their learning rate. The linear probe, which is fitted in seconds, is compared with them where the task
    has a head. All are scored on the same validation rows, with intervals and paired differences, so that the
    test rows can judge what is chosen. Nothing is registered. Results are kept: an interrupted comparison
    continues when it is started again, and another one reuses the trainings that both have. The exit code is
    12 if a training failed.
    """
    from lorry_components.process_setup import ease_garbage_collection, quiet_libraries
    from lorry_components.studies.variants import (
        MethodChoice,
        TaskDocument,
        build_variants,
        draft_method,
        draft_probe,
        find_choice,
        parse_methods,
        refuse_settings,
    )
    from lorry_pipelines.studies.study_run import Study, run_study

    quiet_libraries()
    ease_garbage_collection()
    settings = load_settings()
    task = TaskDocument.load(file, overrides, bases=settings.base_place)
    choices, faults = parse_methods(methods)
    faults += refuse_settings(task, {"method.name": "name methods in --methods"})
    drafts = [draft_method(choice, task) for choice in choices]
    if with_probe and choices and (probe := draft_probe(task, choices)) is not None:
        choices.append(MethodChoice(probe.label))
        drafts.append(probe)
    reference, more = find_choice(against, choices)
    variants = build_variants(task, drafts, [*faults, *more])
    study = Study(
        name="compare",
        heading="Method",
        variants=variants,
        seeds=parse_numbers(flags.seeds, "--seeds")
        if flags.seeds is not None
        else [variants[0].spec.train.seed],
        against=reference,
    )
    for note in _list_expectations(variants):
        click.echo(f"note: {note}", err=True)
    show_study(run_study(study, settings, flags.options), facts=(), as_json=flags.as_json)


def _list_expectations(variants: "Sequence[Variant]") -> list[str]:
    """Return what is known of methods that do not suit a base of this size, each once."""
    from lorry_components.memory.expectations import describe_expectation
    from lorry_components.models.configuration import read_configuration

    read_base = functools.partial(read_configuration, variants[0].spec.base)
    notes = (describe_expectation(variant.spec, read_base) for variant in variants)
    return [*filter(None, dict.fromkeys(notes))]
