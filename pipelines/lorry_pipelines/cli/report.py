"""``lorry report``: what runs made of tasks, as Markdown for a pull request and as a page."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorry_registry.cli.edge import (
    complete_tasks,
    format_examples,
    json_option,
    open_registry,
    print_json,
    write_output,
)
from lorry_registry.cli.prose import print_line
from lorry_registry.errors import NotFoundError, UsageError
from lorry_registry.registry import Registry

if TYPE_CHECKING:
    from lorry_components.steps.report.facts import ReportFacts

_LAST = "last"
_STDOUT = Path("-")


@click.command(
    "report",
    epilog=format_examples(
        "lorry report reviews                                 on the terminal, as Markdown",
        "lorry report --run last --markdown report.md --html report.html",
        'lorry report --run last --markdown - >> "$GITHUB_STEP_SUMMARY"',
        "lorry report reviews --json",
    ),
)
@click.argument("tasks", nargs=-1, metavar="[TASK]...", shell_complete=complete_tasks)
@click.option(
    "--run",
    "run",
    metavar="ID",
    help="Report this run, or the last one that ended: last.  [default: the newest version of each task]",
)
@click.option(
    "--markdown",
    "markdown",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write Markdown that fits into a comment of a pull request, 65,536 characters; - is the terminal.",
)
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write one page that a browser opens without a network.",
)
@json_option
def report_tasks(
    tasks: tuple[str, ...], run: str | None, markdown: Path | None, page: Path | None, as_json: bool
) -> None:
    """Report what runs made of tasks.

    For each task the old and the new version, the metric with its interval, the gain with its p-value, a
    linear probe and trivial baseline beside it, the rows that the new version answers worse, how the data
    changed, sizes and times, links to MLflow and Kubeflow, and the gate's decision in one sentence.
    """
    if as_json and (markdown or page):
        raise UsageError("--json prints the report itself", todo="leave --markdown and --html out")
    from lorry_components.steps.report.markdown import render_markdown
    from lorry_components.steps.report.page import render_page

    facts = _gather(open_registry(), tasks, run)
    if as_json:
        print_json(facts.model_dump(mode="json"))
        return
    if page is not None:
        _write(page, render_page(facts))
    if markdown not in (None, _STDOUT):
        _write(markdown, render_markdown(facts))
    if markdown == _STDOUT or (markdown is None and page is None):
        click.echo(render_markdown(facts), nl=False)


def _gather(registry: Registry, tasks: tuple[str, ...], run: str | None) -> "ReportFacts":
    from lorry_components.steps.report.gathering import find_last_run, gather_run, gather_tasks

    if run is not None:
        return gather_run(registry, find_last_run(registry.store) if run == _LAST else run, tasks)
    names = tasks or tuple(entry.task for entry in registry.list_tasks())
    if not names:
        raise NotFoundError(
            "no task has an adapter yet", where=registry.store.address, todo="run: lorry run TASK.yaml"
        )
    return gather_tasks(registry, names)


def _write(path: Path, text: str) -> None:
    write_output(path, text)
    print_line(f"wrote {path}", err=True)
