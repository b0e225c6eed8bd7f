"""``lorry predict``: predictions of a task's adapter on its base."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from lorry_pipelines.cli.text_rows import Row, open_rows
from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    load_settings,
    open_registry,
    print_json_entries,
    version_option,
)
from lorry_registry.digest_cache import DigestCache
from lorry_registry.errors import UsageError

_SHOWN_CHARACTERS = 72


@click.command(
    epilog=format_examples(
        'lorry predict reviews "Great value!"',
        'lorry predict entailment "A man sleeps." --pair "A man is awake."',
        "lorry predict reviews --file texts.txt --json",
        "cat texts.txt | lorry predict reviews --file -",
    )
)
@click.argument("task")
@click.argument("texts", nargs=-1, metavar="TEXT...")
@click.option(
    "--pair", "pairs", multiple=True, metavar="TEXT", help="The second text of each pair, in order."
)
@click.option(
    "--file",
    "source",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Texts from a file: one a line, or JSON lines with 'text' (and 'text_pair'). '-' is standard input.",
)
@version_option
@json_option
def predict_texts(
    task: str,
    texts: tuple[str, ...],
    pairs: tuple[str, ...],
    source: Path | None,
    version: int | None,
    as_json: bool,
) -> None:
    """Predict with the adapter of a task.

    The adapter is verified byte for byte, and its outputs on a probe are compared with those recorded at
    registration, before it predicts. Images are written into the working folder, as TASK-0.png and so on;
    --json prints their paths.
    """
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
    with contextlib.ExitStack() as stack:
        if source is not None:
            rows: Sequence[Row] = stack.enter_context(open_rows(str(source)))
        else:
            rows = _pair_up(texts, pairs)
        _predict(task, rows, version, as_json=as_json)


def _predict(task: str, rows: Sequence[Row], version: int | None, *, as_json: bool) -> None:
    registry = open_registry()
    resolution = registry.resolve(task, version)
    _check_rows(rows, has_pair="text_pair" in resolution.manifest.probe.rows[0], task=task)

    from lorry_components.process_setup import ease_garbage_collection, quiet_libraries

    quiet_libraries()
    ease_garbage_collection()
    from lorry_components.inference import load_adapter
    from lorry_components.models.bases import resolve_base

    settings = load_settings()
    digest = DigestCache(settings.digests).digest_file
    loaded = load_adapter(
        registry.fetch(resolution.adapter_id),
        expected_id=resolution.adapter_id,
        find_base=lambda spec: resolve_base(spec.find_in(settings.base_place), digest=digest),
    )
    # All rows are checked before the first prediction is printed: they are predicted a part at a time.
    loaded.predictor.check_rows(rows)
    predictions = (
        loaded.task_type.store_prediction(prediction, Path(), task)
        for part in loaded.predictor.predict_parts(rows)
        for prediction in part
    )
    predicted = zip(rows, predictions, strict=True)
    if as_json:
        print_json_entries(join_prediction(*pair) for pair in predicted)
        return
    for row, prediction in predicted:
        click.echo(f"{loaded.task_type.describe_prediction(prediction):>12}  {_shorten(row)}")


def join_prediction(row: Mapping[str, str], prediction: Mapping[str, Any]) -> dict[str, Any]:
    """Return an input and its prediction as one object; a predicted ``text`` becomes ``predicted_text``."""
    renamed = {f"predicted_{name}" if name in row else name: value for name, value in prediction.items()}
    return {**row, **renamed}


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


def _shorten(row: Row) -> str:
    text = " | ".join(row.values())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
