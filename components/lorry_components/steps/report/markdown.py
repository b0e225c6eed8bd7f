"""A report in Markdown, for pull requests and job summaries, which take 65,536 characters and not one more.

Names of classes, texts of rows and reasons are from outside: they are shown as text. It
makes no link, notifies no one, and ends no table.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorry_components.metrics.pictures import ConfusionPicture, ScatterPicture
from lorry_components.steps.evaluate.row_changes import ChangedRow
from lorry_components.steps.report.class_scores import list_class_scores
from lorry_components.steps.report.facts import ReportFacts, TaskFacts
from lorry_components.steps.report.wording import (
    P_VALUE_NOTE,
    describe_changes,
    format_best_baseline,
    format_gain,
    format_probe,
    format_share,
    is_idle,
    list_points,
    list_reasons,
    name_status,
    tell_decision,
)
from lorry_registry.records.adapter_facts import NOTHING, format_interval, format_metric

MOST_CHARACTERS = 65_536
"""What GitHub takes as one comment."""

_LONGEST_TEXT, _LONGEST_CELL = 1_500, 80
_ROOM_FOR_NOTE = 400
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~$&])")
# What a page would turn into a notification or a link to an issue.
_REFERENCES = re.compile(r"([@#])(?=\w)")
_UNSEEN = re.compile(r"[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_HEAD = (
    "| Task | Outcome | Version | Metric | 95 % interval | Gain | Linear probe | Trivial baseline |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


@dataclass(frozen=True, slots=True)
class _Block:
    """A piece that can be left out whole.

    Attributes:
        rank: 0 stays longest; the highest rank is left out first.
        name: What is left out, for the note that says so.
        text: The piece.
    """

    rank: int
    name: str
    text: str


def render_markdown(report: ReportFacts, *, limit: int = MOST_CHARACTERS) -> str:
    """Return a report as GitHub's and GitLab's Markdown that fits into some number of characters.

    Where it would not fit, the least important parts are left out, those of the last tasks first, and a note
    says which: examples, then pictures, then details, then rows of the table.

    Args:
        report: What it says.
        limit: How many characters it may have; at least 1,000.
    """
    opening = f"## {_escape(report.title)}\n\n"
    blocks = [*_list_rows(report.tasks), *_list_notes(report.tasks), *_list_details(report.tasks)]
    kept = set(range(len(blocks)))
    left_out: list[str] = []
    length = len(opening) + sum(len(block.text) for block in blocks)
    if length > limit:
        for place in sorted(kept, key=lambda place: (-blocks[place].rank, -place)):
            if length <= limit - _ROOM_FOR_NOTE:
                break
            kept.remove(place)
            left_out.append(blocks[place].name)
            length -= len(blocks[place].text)
    note = _tell_left_out(left_out)
    return opening + note + "".join(blocks[place].text for place in sorted(kept))


def _tell_left_out(names: Sequence[str]) -> str:
    if not names:
        return ""
    counted = {name: names.count(name) for name in dict.fromkeys(names)}
    parts = ", ".join(
        f"{name} of {count:,} task{'' if count == 1 else 's'}" for name, count in counted.items()
    )
    return f"> Shortened to fit. Left out: {parts}. The report as a page, `lorry report --html`, has all.\n\n"


def _list_rows(tasks: Sequence[TaskFacts]) -> Iterator[_Block]:
    for number, task in enumerate(tasks):
        cells = (
            f"[{_escape(task.task)}]({_escape_address(task.mlflow_url)})"
            if task.mlflow_url
            else _escape(task.task),
            f"**{_escape(name_status(task))}**",
            f"v{task.version}" if task.version else NOTHING,
            _escape(format_metric(task.headline), most=_LONGEST_CELL),
            format_interval(task.headline),
            format_gain(task),
            format_probe(task),
            _escape(format_best_baseline(task), most=_LONGEST_CELL),
        )
        row = f"| {' | '.join(cells)} |\n"
        yield _Block(1 if number else 0, "the row", _HEAD + row if number == 0 else row)


def _list_notes(tasks: Sequence[TaskFacts]) -> Iterator[_Block]:
    if any(task.gain and task.gain.p_value is not None for task in tasks):
        yield _Block(2, "the note on p", f"\n{P_VALUE_NOTE}\n")


def _list_details(tasks: Sequence[TaskFacts]) -> Iterator[_Block]:
    for task in tasks:
        # What was not trained has the least to say.
        has_little = is_idle(task) or task.status == "unchanged"
        heading = f"\n### {_escape(task.task)}\n\n{_escape(tell_decision(task))}\n"
        reasons = "".join(f"- {_escape(reason)}\n" for reason in list_reasons(task))
        heading += f"\n{reasons}" if reasons else ""
        yield _Block(4 if has_little else 3, "the decision in words", heading)
        points = "".join(f"- {name}: {_escape(text)}\n" for name, text in list_points(task))
        metrics = "; ".join(
            f"{_escape(format_metric(metric))} ({format_interval(metric)})" for metric in task.metrics[1:]
        )
        points += f"- Other metrics: {metrics}\n" if metrics else ""
        points += _list_links(task)
        if points:
            yield _Block(6 if has_little else 5, "the details", f"\n{points}")
        picture = _draw_picture(task)
        if picture:
            yield _Block(7, "the picture", picture)
        examples = _list_examples(task)
        if examples:
            yield _Block(8, "the examples", examples)


def _list_links(task: TaskFacts) -> str:
    links = [
        f"[{name}]({_escape_address(address)})"
        for name, address in (("MLflow", task.mlflow_url), ("Kubeflow", task.kfp_url))
        if address
    ]
    run = f"run {_escape(task.run)}" if task.run else ""
    shown = ", ".join(filter(None, [*links, run]))
    return f"- Where: {shown}\n" if shown else ""


def _draw_picture(task: TaskFacts) -> str:
    picture = task.picture
    if isinstance(picture, ConfusionPicture):
        table = _draw_confusion(picture)
        summary = f"Confusion matrix: {picture.wrong:,} of {picture.rows:,} test rows are wrong"
        return (
            f"\n<details><summary>{summary}</summary>\n\n{table}{_list_class_scores(picture)}\n</details>\n"
        )
    if isinstance(picture, ScatterPicture) and picture.points:
        return (
            f"\n<details><summary>True and predicted values</summary>\n\n{_draw_bands(picture)}\n</details>\n"
        )
    return ""


def _draw_confusion(picture: ConfusionPicture) -> str:
    if picture.names:
        names = [_escape(name) for name in picture.names]
        head = f"| true class, predicted → | {' | '.join(names)} |\n|---|{'---:|' * len(names)}\n"
        rows = (
            f"| {name} | {' | '.join(_mark(count, row == column) for column, count in enumerate(counts))} |\n"
            for row, (name, counts) in enumerate(zip(names, picture.counts, strict=False))
        )
        return head + "".join(rows)
    head = f"The most frequent mistakes among {picture.classes:,} classes:\n\n"
    table = "| true class | predicted class | rows |\n|---|---|---:|\n"
    rows = (
        f"| {_escape(each.truth)} | {_escape(each.answer)} | {each.count:,} |\n" for each in picture.mistakes
    )
    return head + table + "".join(rows)


def _list_class_scores(picture: ConfusionPicture) -> str:
    rows = "".join(
        f"| {_escape(each.name)} | {each.rows:,} | {format_share(each.precision)} "
        f"| {format_share(each.recall)} | {each.f1:.3f} |\n"
        for each in list_class_scores(picture)
    )
    return f"\n| class | rows | precision | recall | F1 |\n|---|---:|---:|---:|---:|\n{rows}" if rows else ""


def _mark(count: int, is_right: bool) -> str:
    return f"**{count:,}**" if is_right and count else f"{count:,}" if count else "·"


def _draw_bands(picture: ScatterPicture) -> str:
    """Return a plot of points as a table: how far off predictions are in each fifth of the true values."""
    points = sorted(picture.points)
    size = -(-len(points) // 5)
    table = "| true value | rows | mean prediction | mean error |\n|---|---:|---:|---:|\n"
    for start in range(0, len(points), size):
        band = points[start : start + size]
        mean = sum(guess for _, guess in band) / len(band)
        error = sum(abs(guess - truth) for truth, guess in band) / len(band)
        table += f"| {band[0][0]:.3g} to {band[-1][0]:.3g} | {len(band):,} | {mean:.3g} | {error:.2g} |\n"
    shown = f"\n{len(points):,} of {picture.rows:,} test rows.\n" if len(points) < picture.rows else ""
    return table + shown


def _list_examples(task: TaskFacts) -> str:
    summary = describe_changes(task)
    if not summary or task.gain is None or task.gain.changes is None or not task.gain.changes.rows:
        return f"\n{summary}.\n" if summary else ""
    rows = "".join(
        _describe_row(row, old=f"v{task.gain.version}", new=f"v{task.version}")
        for row in task.gain.changes.rows
    )
    return f"\n<details><summary>{summary}</summary>\n\n{rows}\n</details>\n"


def _describe_row(row: ChangedRow, *, old: str, new: str) -> str:
    texts = " / ".join(_quote(text) for text in row.texts.values()) or "(an image)"
    return f"- {texts}\n  right: {_quote(row.truth)}; {old}: {_quote(row.before)}; {new}: {_quote(row.now)}\n"


def _quote(text: str) -> str:
    """Return a text as code, in which nothing is read as Markdown."""
    plain = " ".join(_UNSEEN.sub(" ", text).split())
    longest = max((len(run) for run in re.findall(r"`+", plain)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {plain} {fence}" if longest else f"{fence}{plain or ' '}{fence}"


def _escape(text: str, *, most: int = _LONGEST_TEXT) -> str:
    """Return a text on one line in which nothing is read as Markdown or HTML, and that names no one."""
    plain = " ".join(_UNSEEN.sub(" ", text).split())
    if len(plain) > most:
        plain = f"{plain[: most - 1]}…"
    return _REFERENCES.sub("\\1\u200b", _SPECIAL.sub(r"\\\1", plain))


def _escape_address(address: str) -> str:
    return re.sub(r"[\s()<>\\|\"'`]", lambda found: f"%{ord(found.group()):02X}", address)
