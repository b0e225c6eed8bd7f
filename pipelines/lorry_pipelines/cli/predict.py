"""``lorry predict``: predictions of a task's adapter on its base."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lorry_components.data.layout import find_format
from lorry_components.data.rows import join_prediction
from lorry_pipelines.cli.row_progress import show_rows
from lorry_pipelines.cli.text_rows import Row, open_rows
from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    load_settings,
    open_registry,
    print_json_entries,
    print_warning,
    task_argument,
    version_option,
)
from lorry_registry.cli.prose import print_line
from lorry_registry.errors import Fault, InvalidDataError, UsageError
from lorry_registry.files.digest_cache import DigestCache
from lorry_registry.manifest import Manifest
from lorry_registry.registry import Registry, Resolution
from lorry_registry.tasks.input_specs import Columns

if TYPE_CHECKING:
    from lorry_components.inference import LoadedAdapter
    from lorry_components.task_types import Prediction

_SHOWN_CHARACTERS = 72


@click.command(
    epilog=format_examples(
        'lorry predict reviews "Great value!"',
        'lorry predict entailment "A man sleeps." --pair "A man is awake."',
        "lorry predict reviews --file new.csv --output predicted.csv",
        "lorry predict reviews --file texts.txt --json",
        "cat texts.txt | lorry predict reviews",
    )
)
@task_argument
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "--pair", "pairs", multiple=True, metavar="TEXT", help="The second text of each pair, in order."
)
@click.option(
    "--file",
    "source",
    type=click.Path(path_type=Path, allow_dash=True),
    help="A table with the task's columns: .csv, .tsv, .jsonl, each also with .gz, or .parquet. Any other "
    "file is read as one text a line, or JSON lines with 'text' (and 'text_pair'). '-' is standard input, "
    "which is read without this option, too.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the rows of --file in its format, with the predictions beside in columns predicted_...",
)
@version_option
@json_option
def predict_texts(
    task: str,
    texts: tuple[str, ...],
    pairs: tuple[str, ...],
    source: Path | None,
    output: Path | None,
    version: int | None,
    as_json: bool,
) -> None:
    """Predict with the adapter of a task.

    The adapter is verified byte for byte, and its outputs on a probe are compared with those recorded at
    registration, before it predicts. Images are written into the working folder, as TASK-0.png and so on;
    --json prints their paths.

    Without texts, or with '-' in their place, standard input is read like a file.
    """
    if source is None and (texts == ("-",) or not (texts or sys.stdin.isatty())):
        texts, source = (), Path("-")
    if bool(texts) == (source is not None):
        raise UsageError(
            "give texts, or a file of texts", where="lorry predict", todo="see: lorry predict --help"
        )
    if pairs and not texts:
        raise UsageError(
            "second texts can only be given with texts on the command line",
            where="--pair",
            todo='put both texts into the file, as JSON lines: {"text": "...", "text_pair": "..."}',
        )
    if output is not None:
        _check_output(output, source, as_json=as_json)
    if source is not None and str(source) != "-" and not source.exists():
        fault = Fault("file", "there is no such file")
        raise InvalidDataError(str(source), [fault], todo="give the path of a table or a file of texts")
    typed = _pair_up(texts, pairs)
    registry = open_registry()
    resolution = registry.resolve(task, version)
    with contextlib.ExitStack() as stack:
        if source is not None and find_format(source.name) is not None:
            rows: Sequence[Row] = _open_table(source, resolution.manifest)
        else:
            rows = typed
            if source is not None:
                rows = stack.enter_context(_open_lines(source, resolution.manifest))
            _check_rows(rows, has_pair="text_pair" in resolution.manifest.probe.rows[0], task=task)
        loaded = _load(registry, resolution)
        if output is not None:
            _write(loaded, task, rows, output)
        else:
            _print(loaded, task, rows, as_json=as_json)


def read_columns(manifest: Manifest) -> Columns:
    """Return the columns of the data that an adapter was trained on, as its recipe names them."""
    data = manifest.recipe.get("data")
    named = data.get("columns") if isinstance(data, dict) else None
    if not isinstance(named, dict):
        return Columns()
    return Columns.model_validate({field: named[field] for field in Columns.model_fields if field in named})


def _check_output(output: Path, source: Path | None, *, as_json: bool) -> None:
    """Refuse an output that cannot become what it should be, before anything is loaded.

    Raises:
        UsageError: It does not fit the file that is predicted, or its folder is not there.
    """
    if source is None:
        raise UsageError(
            "texts on the command line have no file to write beside",
            where="--output",
            todo="give the texts with --file, or use --json",
        )
    if as_json:
        raise UsageError("predictions are written or printed", where="--output", todo="leave --json out")
    wanted, given = find_format(source.name), find_format(output.name)
    if given is None or given not in ({wanted} if wanted is not None else {"csv", "tsv", "json lines"}):
        of_format = f"as {source.name} has, with or without .gz: predictions are written in the same format"
        raise UsageError(
            f"the ending of {output.name} is not that of the file to predict",
            where="--output",
            todo=f"give one {of_format}"
            if wanted is not None
            else "give .csv, .tsv or .jsonl, or one of .gz",
        )
    if not output.absolute().parent.is_dir():
        raise UsageError(
            f"there is no folder {output.absolute().parent}",
            where="--output",
            todo="make it, or give another",
        )
    if output.exists() and source.exists() and output.samefile(source):
        raise UsageError("the file to predict would be replaced", where="--output", todo="give another name")


def _open_table(source: Path, manifest: Manifest) -> Sequence[Row]:
    """Check a table, and say how it is read."""
    from lorry_components.data.inputs import open_table

    table = open_table(source, read_columns(manifest))
    named = " and ".join(repr(column) for column in table.fields.values())
    read = (
        f"the texts are in the columns {named}"
        if len(table.fields) > 1
        else f"the text is in the column {named}"
    )
    print_line(f"{source.name}: a table with {_count(len(table), 'row')}; {read}", err=True)
    return table


@contextlib.contextmanager
def _open_lines(source: Path, manifest: Manifest) -> Iterator[Sequence[Row]]:
    """Check a text, say how it is read, and yield its rows."""
    with open_rows(str(source), read_columns(manifest)) as rows:
        name = "standard input" if str(source) == "-" else source.name
        print_line(f"{name}: one text a line, {_count(len(rows), 'text')}", err=True)
        yield rows


def _load(registry: Registry, resolution: Resolution) -> "LoadedAdapter":
    from lorry_components.process_setup import ease_garbage_collection, quiet_libraries
    from lorry_components.processors import limit_own_threads

    quiet_libraries()
    ease_garbage_collection()
    limit_own_threads()
    from lorry_components.inference import load_adapter
    from lorry_components.models.bases import resolve_base
    from lorry_components.models.quantization import import_peft_alone

    import_peft_alone()
    settings = load_settings()
    digest = DigestCache(settings.digests).digest_file
    return load_adapter(
        registry.fetch(resolution.adapter_id),
        expected_id=resolution.adapter_id,
        find_base=lambda spec: resolve_base(spec.find_in(settings.base_place), digest=digest),
    )


def _predict(
    loaded: "LoadedAdapter", task: str, rows: Sequence[Row], report: Callable[[int], None]
) -> Iterator["Prediction"]:
    # All rows are checked before the first prediction is shown: they are predicted a part at a time.
    loaded.predictor.check_rows(rows)
    return (
        loaded.task_type.store_prediction(prediction, Path(), task)
        for part in loaded.predictor.predict_parts(rows, report=report)
        for prediction in part
    )


def _print(loaded: "LoadedAdapter", task: str, rows: Sequence[Row], *, as_json: bool) -> None:
    # Between predictions a bar would be in the way.
    shown = contextlib.nullcontext(_ignore) if sys.stdout.isatty() else show_rows(len(rows), sys.stderr)
    with shown as report:
        predicted = zip(rows, _predict(loaded, task, rows, report), strict=True)
        if as_json:
            print_json_entries(join_prediction(*pair) for pair in predicted)
            return
        for row, prediction in predicted:
            print_line(f"{loaded.task_type.describe_prediction(prediction):>12}  {_shorten(row)}")


def _write(loaded: "LoadedAdapter", task: str, rows: Sequence[Row], output: Path) -> None:
    from lorry_components.data.inputs import InputTable
    from lorry_components.data.predicted_table import write_beside, write_parquet_beside
    from lorry_components.data.text_tables import has_byte_order_mark

    with show_rows(len(rows), sys.stderr) as report:
        predictions = _predict(loaded, task, rows, report)
        if not isinstance(rows, InputTable):
            written = write_beside(output, rows, predictions)
        elif find_format(output.name) == "parquet":
            types = loaded.task_type.prediction_fields
            written = write_parquet_beside(output, rows.path, predictions, types)
        else:
            written = write_beside(
                output,
                rows.read_records(),
                predictions,
                mark=has_byte_order_mark(rows.path),
                dialect=rows.dialect,
            )
    print_line(f"{output}: {_count(written.rows, 'row')} with {', '.join(written.added)}")
    if written.formulas:
        print_warning(
            f"{output}: {_count(written.formulas, 'row')} with a text that begins like a formula (= + - @ or "
            "a tab), which a spreadsheet computes when it opens the file: import the columns as text there"
        )


def _ignore(_done: int) -> None:
    pass


def _pair_up(texts: Sequence[str], pairs: Sequence[str]) -> list[dict[str, str]]:
    if not pairs:
        return [{"text": text} for text in texts]
    if len(pairs) != len(texts):
        raise UsageError(
            f"{len(texts)} texts and {len(pairs)} second texts do not make pairs",
            where="--pair",
            todo="give one --pair for each text",
        )
    return [{"text": text, "text_pair": pair} for text, pair in zip(texts, pairs, strict=True)]


def _check_rows(rows: Sequence[Row], *, has_pair: bool, task: str) -> None:
    if not rows:
        raise UsageError("there are no texts", where=task, todo="give at least one text")
    numbered = enumerate(rows, start=1)
    wrong = next((number for number, row in numbered if ("text_pair" in row) != has_pair), None)
    if wrong is not None:
        wants = "pairs of texts: give --pair TEXT" if has_pair else "single texts: leave --pair out"
        raise UsageError(f"row {wrong} does not fit", where=task, todo=f"the task takes {wants}")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _shorten(row: Row) -> str:
    text = " | ".join(row.values())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
