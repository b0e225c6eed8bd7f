"""``lorry study``: the papers' studies of ranks, target matrices and prompts, on your own task."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorry_pipelines.cli.study_options import StudyFlags, parse_numbers, study_flags
from lorry_pipelines.cli.study_tables import show_study
from lorry_pipelines.cli.task_options import overrides_option
from lorry_registry.cli.edge import format_examples, load_settings
from lorry_registry.cli.lazy import LazyGroup
from lorry_registry.cli.tables import Column

if TYPE_CHECKING:
    from lorry_components.studies.variants import Variant

file_argument = click.argument("file", metavar="TASK.yaml", type=click.Path(path_type=Path))


@click.group(
    cls=LazyGroup,
    epilog=format_examples(
        "lorry study rank reviews.yaml",
        "lorry study targets reviews.yaml --seeds 0,1,2",
        "lorry study prompts facts.yaml --wordings wordings.txt",
    ),
)
def study() -> None:
    """Study ranks, target matrices or prompts on a task.

    The studies are those of Hu et al. 2021 and Liu et al. 2021. Each ends in a table with the published
    figures, a plot, and a section to paste into the task file: the smallest choice that is not significantly
    below the best. Nothing is registered. Results are kept: an interrupted study continues when it is started
    again.
    """


@study.command(
    "rank",
    epilog=format_examples(
        "lorry study rank reviews.yaml",
        "lorry study rank reviews.yaml --ranks 1,4,16 --seeds 0,1,2 --set data.limit.train=2000",
    ),
)
@file_argument
@click.option("--ranks", default="1,2,4,8,64", show_default=True, metavar="N,N,...", help="The ranks.")
@overrides_option
@study_flags
def study_rank(file: Path, ranks: str, overrides: tuple[str, ...], flags: StudyFlags) -> None:
    """Train LoRA with several ranks.

    With the task's own LoRA section, or LoRA's defaults. Alpha and the learning rate stay the same. The exit
    code is 12 if a training failed.
    """
    _prepare_process()
    from lorry_components.studies.rank_study import check_ranks, draft_ranks
    from lorry_components.studies.variants import TaskDocument, build_variants, refuse_settings
    from lorry_pipelines.studies.study_run import Study, run_study

    settings = load_settings()
    task = TaskDocument.load(file, overrides, bases=settings.base_place)
    numbers = parse_numbers(ranks, "--ranks")
    faults = [*check_ranks(numbers), *refuse_settings(task, {"method.r": "give --ranks"})]
    variants = build_variants(task, draft_ranks(task, numbers), faults)
    laid_out = Study(
        name="rank",
        heading="Rank",
        variants=variants,
        seeds=_choose_seeds(flags, variants),
    )
    show_study(run_study(laid_out, settings, flags.options), facts=(), as_json=flags.as_json)


@study.command(
    "targets",
    epilog=format_examples(
        "lorry study targets reviews.yaml",
        "lorry study targets reviews.yaml --budget 147456 --combinations q,v,q+v,q+k+v+o",
    ),
)
@file_argument
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    metavar="N",
    help="The most parameters that each may train.  [default: as many as the task's own LoRA]",
)
@click.option(
    "--combinations",
    metavar="q,q+v,...",
    help="What to compare.  [default: q, k, v, o, q+k, q+v and all four, as far as the base allows]",
)
@overrides_option
@study_flags
def study_targets(
    file: Path, budget: int | None, combinations: str | None, overrides: tuple[str, ...], flags: StudyFlags
) -> None:
    """Train LoRA on different projections of attention.

    W_q, W_k, W_v and W_o are located by the base's structure; each combination gets the rank that the budget
    of parameters allows. The exit code is 12 if a training failed.
    """
    _prepare_process()
    from lorry_components.studies.target_study import lay_out_targets, parse_combinations
    from lorry_components.studies.variants import TaskDocument, build_variants
    from lorry_pipelines.studies.study_run import Study, run_study

    settings = load_settings()
    task = TaskDocument.load(file, overrides, bases=settings.base_place)
    chosen, faults = parse_combinations(combinations) if combinations else (None, [])
    grid, more = lay_out_targets(task, budget=budget, combinations=chosen)
    variants = build_variants(task, grid.drafts if grid else (), [*faults, *more])
    assert grid is not None
    laid_out = Study(
        name="targets",
        heading="Targets",
        variants=variants,
        seeds=_choose_seeds(flags, variants),
        by_parameters=False,
        notes=[f"each trains at most {grid.budget:,} parameters", *grid.notes],
    )
    facts = (("rank", Column("Rank", justify="right")),)
    show_study(run_study(laid_out, settings, flags.options), facts=facts, as_json=flags.as_json)


@study.command(
    "prompts",
    epilog=format_examples(
        "lorry study prompts facts.yaml --wordings wordings.txt",
        "lorry study prompts facts.yaml --template '{text} is in {label}' --template '{text}: {label}'",
    ),
)
@file_argument
@click.option(
    "--wordings",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A file of prompts, one template a line.",
)
@click.option("--template", "templates", multiple=True, metavar="TEXT", help="A prompt; may be repeated.")
@click.option(
    "--methods",
    default="p-tuning",
    show_default=True,
    metavar="NAME[:OPTION=VALUE;...],...",
    help="What is trained on each prompt, written as for lorry compare.",
)
@overrides_option
@study_flags
def study_prompts(
    file: Path,
    wordings: Path | None,
    templates: tuple[str, ...],
    methods: str,
    overrides: tuple[str, ...],
    flags: StudyFlags,
) -> None:
    """Try different prompts, with and without P-tuning.

    For tasks with data.template. Each prompt is tried on the untrained base, and with a method trained on it.
    '[P]*3' in a prompt marks the places of P-tuning's soft tokens; the untrained base reads the words alone.
    The exit code is 12 if a trial failed.
    """
    _prepare_process()
    from lorry_components.studies.prompt_study import check_prompts, draft_prompts, read_prompts
    from lorry_components.studies.variants import (
        TaskDocument,
        build_variants,
        parse_methods,
        refuse_settings,
    )
    from lorry_pipelines.studies.study_run import Study, run_study

    settings = load_settings()
    task = TaskDocument.load(file, overrides, bases=settings.base_place)
    read, faults = read_prompts(wordings) if wordings else ([], [])
    tried = [*read, *templates]
    choices, wrong = parse_methods(methods)
    if not faults:
        faults = list(check_prompts(tried))
    faults += refuse_settings(
        task,
        {
            "data.template": "give --template or --wordings",
            "method.template": "a prompt marks the places of soft tokens with [P]",
            "method.name": "name methods in --methods",
        },
    )
    variants = build_variants(task, draft_prompts(task, tried, choices), [*faults, *wrong])
    laid_out = Study(
        name="prompts",
        heading="Prompt",
        variants=variants,
        seeds=_choose_seeds(flags, variants),
        by_parameters=False,
        notes=[f"{number}: {text}" for number, text in enumerate(tried, start=1)],
    )
    show_study(run_study(laid_out, settings, flags.options), facts=(), as_json=flags.as_json)


def _choose_seeds(flags: StudyFlags, variants: "Sequence[Variant]") -> list[int]:
    return parse_numbers(flags.seeds, "--seeds") if flags.seeds is not None else [variants[0].spec.train.seed]


def _prepare_process() -> None:
    from lorry_components.process_setup import ease_garbage_collection, quiet_libraries

    quiet_libraries()
    ease_garbage_collection()
