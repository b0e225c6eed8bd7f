"""The end of a comparison: a table, the plot, and a section to paste."""

import sys
from typing import TYPE_CHECKING

import click

from lorry_registry.cli.edge import print_json
from lorry_registry.cli.prose import find_width, print_line, print_prose, wrap_prose
from lorry_registry.cli.tables import NOTHING, Column, print_bullets, print_heading, print_table
from lorry_registry.errors import RunFailedError
from lorry_registry.text.sizes import format_in, format_size

if TYPE_CHECKING:
    from lorry_components.studies.study_summary import StudyRow
    from lorry_pipelines.studies.study_run import StudyReport

_WIDTH = 100
_UNSTEADY = "seeds differ"


def show_study(report: "StudyReport", *, as_json: bool) -> None:
    """Print the results of a comparison, and exit with a code that says whether they are complete.

    Args:
        report: The results.
        as_json: Print the rows as JSON instead.

    Raises:
        RunFailedError: A trial failed.
    """
    if as_json:
        print_json(report.describe_rows())
    else:
        _print_table(report)
        _print_notes(report)
    if report.failed:
        raise RunFailedError(
            "\n".join(
                f"{outcome.trial.name}: {outcome.error}\n  log: {outcome.folder.log}"
                for outcome in report.failed
            ),
            todo="correct this and run the same command again: finished trials are not repeated",
        )


def _print_table(report: "StudyReport") -> None:
    summary = report.summary
    against = f"vs {summary.reference}" if report.study.comparison.against else "vs best"
    columns = [
        Column("Variant" if report.study.grid else "Method"),
        Column("Seeds", justify="right", rank=3),
        Column(summary.title, justify="right"),
        Column("95 % interval", rank=2),
        Column(against, justify="right"),
        Column("95 % interval", rank=5),
        Column("Trained", justify="right"),
        Column("Of all", justify="right", rank=4),
        Column("Adapter", justify="right", rank=6),
        Column("Seconds", justify="right", rank=1),
        Column("Peak memory", justify="right", rank=7),
    ]
    rows = [
        [
            row.variant.label,
            str(len(row.seeds)) if row.seeds else NOTHING,
            *_format_metric(row, is_reference=row.variant.label == summary.reference),
            *_format_cost(row),
        ]
        for row in summary.rows
    ]
    click.echo()
    print_table(columns, rows)


_TEST_CAUTION = "what is chosen by test rows looks better on them than it is, also when lorry run judges it"


def _print_notes(report: "StudyReport") -> None:
    from lorry_components.studies.recommendation import explain_doubts

    summary = report.summary
    if summary.reference is None:
        return
    heads = {
        training.parameters.head
        for row in summary.rows
        for training in row.trainings
        if training.parameters.head
    }
    has_seeds = any(len(row.seeds) > 1 for row in summary.rows)
    over_seeds = ", the mean over seeds ± their standard deviation" if has_seeds else ""
    lines = [
        f"{summary.title} on {summary.examples:,} {summary.part} rows{over_seeds}; intervals are of "
        "other rows, differences on the same rows: one counts where its interval does not cover 0",
        *([_TEST_CAUTION] if summary.part == "test" else []),
        *([f"trained parameters are without the head, which adds {_join(heads)}"] if heads else []),
        *(row.doubt for row in summary.rows if row.doubt),
        *report.notes,
    ]
    print_bullets(lines)
    chosen = report.recommendation
    doubts = explain_doubts(summary)
    if doubts:
        print_heading("Nothing is recommended")
        print_prose(f"{doubts}.", hanging="")
    elif chosen is not None:
        print_heading("Recommended")
        click.echo(chosen.section or "nothing to train: the untrained base")
        click.echo()
        width = min(_WIDTH, find_width(sys.stdout) or _WIDTH)
        click.echo(wrap_prose(f"# {chosen.reason}.", width, hanging="# "))
    click.echo()
    if report.plot is not None:
        print_line(f"plot: {report.plot}")
    print_line(f"results: {report.results}")


def _format_metric(row: "StudyRow", *, is_reference: bool) -> list[str]:
    if row.estimate is None:
        return ["failed", NOTHING, NOTHING, NOTHING]
    spread = f" ±{row.spread:.3f}" if row.spread is not None else ""
    failed = " (a seed failed)" if row.errors else ""
    difference = row.difference
    return [
        f"{row.estimate.value:.3f}{spread}{failed}",
        # Around the mean of seeds that far apart an interval over rows would pretend to know.
        f"{row.estimate.low:.3f} to {row.estimate.high:.3f}" if not row.is_unsteady else _UNSTEADY,
        f"{difference.value:+z.3f}" if difference else (NOTHING if not is_reference else "="),
        f"{difference.low:+z.3f} to {difference.high:+z.3f}" if difference else NOTHING,
    ]


def _format_cost(row: "StudyRow") -> list[str]:
    if not row.trainings:
        return ["0" if not row.variant.is_trained else NOTHING, *[NOTHING] * 4]
    training = row.trainings[0]
    parameters = training.parameters
    seconds, peak = row.average_seconds(), row.find_peak_memory()
    return [
        f"{parameters.adapter:,}",
        f"{parameters.adapter / parameters.total:.2%}",
        format_size(training.adapter_bytes, compact=True),
        f"{seconds:.0f}" if seconds is not None else NOTHING,
        format_in(peak, "MiB", digits=0) if peak is not None else NOTHING,
    ]


def _join(numbers: set[int]) -> str:
    return " or ".join(f"{number:,}" for number in sorted(numbers))
