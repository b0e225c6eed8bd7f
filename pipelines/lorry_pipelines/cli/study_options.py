"""The options that comparisons and studies share."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lorry_registry.cli.edge import json_option, read_environment
from lorry_registry.errors import UsageError

if TYPE_CHECKING:
    from lorry_components.studies.trials import Part
    from lorry_pipelines.studies.study_run import StudyOptions

_MOST = 2**32


@dataclass(frozen=True, slots=True)
class StudyFlags:
    """The values of the shared options.

    Attributes:
        seeds: The seeds, as written; None: the task's.
        as_json: Whether JSON is printed.
        jobs: How many trials at a time.
        output: The folder for results and plot.
        force: Whether trials are run whose plan does not fit their resources.
        part: The part of the data that trials are scored on.
    """

    seeds: str | None
    as_json: bool
    jobs: int | None
    output: Path | None
    force: bool
    part: "Part"

    @property
    def options(self) -> "StudyOptions":
        """How the study is run."""
        from lorry_pipelines.studies.study_run import StudyOptions

        return StudyOptions(
            environment=read_environment(),
            jobs=self.jobs,
            output=self.output,
            quiet=self.as_json,
            force=self.force,
            part=self.part,
        )


def study_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options to a command, which gets them as ``flags``."""

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
    @json_option
    @functools.wraps(command)
    def with_flags(
        *arguments: Any,
        seeds: str | None,
        as_json: bool,
        jobs: int | None,
        output: Path | None,
        force: bool,
        part: "Part",
        **named: Any,
    ) -> None:
        flags = StudyFlags(seeds, as_json, jobs, output, force, part)
        command(*arguments, flags=flags, **named)

    return with_flags


def parse_numbers(text: str, option: str) -> list[int]:
    """Read ``0,1,2``.

    Raises:
        UsageError: It is not a list of distinct whole numbers.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a list of whole numbers", where=option, todo="write 0,1,2"
        ) from error
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"{text!r} names a number twice", where=option, todo="name each once")
    if not all(0 <= number < _MOST for number in numbers):
        raise UsageError(f"{text!r} holds a number out of range", where=option, todo="write 0 or more")
    return numbers
