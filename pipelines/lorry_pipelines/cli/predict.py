"""``lorry predict``: predictions of a task's adapter on its base."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from lorry_registry.cli.edge import (
    format_examples,
    json_option,
    load_settings,
    open_registry,
    print_json,
    version_option,
)
from lorry_registry.digest_cache import DigestCache
from lorry_registry.errors import Fault, InvalidDataError, UsageError

_SHOWN_CHARACTERS = 72
_SHOWN_FAULTS = 20


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
    rows = _pair_up(texts, pairs) if texts else _read_rows(source)
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
    predictions = loaded.predictor.predict(rows)
    predictions = [loaded.task_type.store_prediction(each, Path(), task) for each in predictions]
    if as_json:
        print_json([join_prediction(*pair) for pair in zip(rows, predictions, strict=True)])
        return
    for row, prediction in zip(rows, predictions, strict=True):
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


def _read_rows(source: Path | None) -> list[dict[str, str]]:
    where = str(source)
    rows: list[dict[str, str]] = []
    faults: list[Fault] = []
    # Not str.splitlines: it also splits a text at U+2028 and other characters.
    for number, line in enumerate(_read_text(where).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(_read_row(line.removesuffix("\r")))
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            faults.append(Fault(f"line {number}", reason))
    if faults:
        raise InvalidDataError(where, faults[:_SHOWN_FAULTS], todo="correct these lines", total=len(faults))
    return rows


def _read_text(where: str) -> str:
    """Read a file or standard input as UTF-8; a byte order mark before it is not part of the text."""
    try:
        content = sys.stdin.buffer.read() if where == "-" else Path(where).read_bytes()
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        fault = Fault("file", "there is no such file")
        raise InvalidDataError(where, [fault], todo="give the path of a file of texts") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        fault = Fault("file", f"cannot be read as UTF-8 text: {reason}")
        raise InvalidDataError(where, [fault], todo="give another file") from error


def _read_row(line: str) -> dict[str, str]:
    """Return the row of a line.

    Raises:
        RecursionError: It is JSON, but nested too deeply.
        ValueError: It starts like JSON but is not, or has no text.
    """
    if not line.lstrip().startswith("{"):
        return {"text": line}
    try:
        document: Any = json.loads(line)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    row = {key: document[key] for key in ("text", "text_pair") if isinstance(document.get(key), str)}
    if "text" not in row:
        raise ValueError("has no 'text'")
    return row


def _check_rows(rows: Sequence[dict[str, str]], *, has_pair: bool, task: str) -> None:
    if not rows:
        raise UsageError("there are no texts", where=task, todo="give at least one text")
    wrong = [number for number, row in enumerate(rows, start=1) if ("text_pair" in row) != has_pair]
    if wrong:
        wants = "pairs of texts: give --pair TEXT" if has_pair else "single texts: leave --pair out"
        raise UsageError(f"row {wrong[0]} does not fit", where=task, todo=f"the task takes {wants}")


def _shorten(row: dict[str, str]) -> str:
    text = " | ".join(row.values())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
