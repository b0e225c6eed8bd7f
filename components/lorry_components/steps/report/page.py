"""A report as one HTML file that a browser opens without a network; nothing in it runs.

All that comes from data, from task files or from the store is escaped, and links lead to web pages only.
"""

import base64
import hashlib
import importlib.resources
from collections.abc import Iterator
from html import escape

from lorry_components.metrics.pictures import ConfusionPicture, ScatterPicture
from lorry_components.steps.evaluate.row_changes import ChangedRow
from lorry_components.steps.report.class_scores import list_class_scores
from lorry_components.steps.report.curve_picture import draw_curve
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

_SHADES = 5
_SIDE, _LEFT, _MARGIN = 300, 50, 34
_COLUMNS = (
    *("Task", "Outcome", "Version", "Metric", "95 % interval"),
    *("Gain", "Linear probe", "Trivial baseline"),
)


def render_page(report: ReportFacts) -> str:
    """Return a report as a page."""
    style = importlib.resources.files(__package__).joinpath("report.css").read_text("utf-8")
    # The page's policy: this very style, and nothing else.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = "".join(f'<th scope="col"{_align(name)}>{name}</th>' for name in _COLUMNS)
    has_tests = any(task.gain and task.gain.p_value is not None for task in report.tasks)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{escape(report.title)}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{escape(report.title)}</h1><p class="about">{_count_outcomes(report)}</p></header>
<main>
<div class="wide"><table class="overview"><thead><tr>{head}</tr></thead><tbody>
{"".join(map(_render_row, report.tasks))}</tbody></table></div>
{f'<p class="note">{P_VALUE_NOTE}</p>' if has_tests else ""}
{"".join(map(_render_task, report.tasks))}</main>
</body>
</html>
"""


def _count_outcomes(report: ReportFacts) -> str:
    names = [name_status(task) if task.status != "failed" else "failed" for task in report.tasks]
    counted = [f"{names.count(name)} {escape(name)}" for name in dict.fromkeys(names)]
    return f"{len(names)} task{'' if len(names) == 1 else 's'}" + (f": {', '.join(counted)}" if names else "")


def _align(column: str) -> str:
    return ' class="number"' if column in ("Version", "Gain", "Linear probe") else ""


def _render_row(task: TaskFacts) -> str:
    name = escape(task.task)
    linked = f'<a href="{escape(task.mlflow_url)}">{name}</a>' if task.mlflow_url else name
    status = f'<span class="{task.status}">{escape(name_status(task))}</span>'
    cells = (
        status,
        f"v{task.version}" if task.version else NOTHING,
        escape(format_metric(task.headline)),
        format_interval(task.headline),
        format_gain(task),
        format_probe(task),
        escape(format_best_baseline(task)),
    )
    shown = "".join(
        f'<td class="{_choose_class(name, cell)}" data-label="{name}">{cell}</td>'
        for name, cell in zip(_COLUMNS[1:], cells, strict=True)
    )
    return f'<tr><th scope="row">{linked}</th>{shown}</tr>\n'


def _choose_class(column: str, cell: str) -> str:
    names = ["number"] if _align(column) else []
    names += ["none"] if cell == NOTHING else []
    return " ".join(names)


def _render_task(task: TaskFacts) -> str:
    points = [
        f"<dt{' class=warning' if name == 'Warning' else ''}>{escape(name)}</dt><dd>{escape(text)}</dd>"
        for name, text in list_points(task)
    ]
    points += [f"<dt>{name}</dt><dd>{content}</dd>" for name, content in _list_more(task)]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in list_reasons(task))
    about = " · ".join(filter(None, (task.kind, " ".join(task.description.split()))))
    return (
        f"<section><h2>{escape(task.task)}</h2>"
        + (f'<p class="about">{escape(about)}</p>' if about else "")
        + f'<p class="decision">{escape(tell_decision(task))}</p>'
        + (f"<ul>{reasons}</ul>" if reasons else "")
        + (f"<dl>{''.join(points)}</dl>" if points else "")
        + _render_curve(task)
        + _render_picture(task)
        + _render_examples(task)
        + "</section>\n"
    )


def _list_more(task: TaskFacts) -> Iterator[tuple[str, str]]:
    if len(task.metrics) > 1:
        shown = (f"{escape(format_metric(each))} ({format_interval(each)})" for each in task.metrics[1:])
        yield "Other metrics", "; ".join(shown)
    if task.reasons != list_reasons(task) and task.status != "failed" and not is_idle(task):
        yield "Reasons", "<br>".join(map(escape, task.reasons))
    links = [
        f'<a href="{escape(address)}">{name}</a>'
        for name, address in (("MLflow", task.mlflow_url), ("Kubeflow", task.kfp_url))
        if address
    ]
    where = [*links, *([f"run {escape(task.run)}"] if task.run else [])]
    if where:
        yield "Where", ", ".join(where)
    if task.adapter_id:
        yield "Adapter", escape(task.adapter_id)
    if task.registered_at is not None:
        yield "Registered", f"{task.registered_at:%Y-%m-%d %H:%M} UTC by {escape(task.registered_by)}"


def _render_curve(task: TaskFacts) -> str:
    picture = draw_curve(task.curve) if task.curve is not None else ""
    return f"<h3>Learning curve</h3>{picture}" if picture else ""


def _render_picture(task: TaskFacts) -> str:
    if isinstance(task.picture, ConfusionPicture):
        return _render_confusion(task.picture)
    if isinstance(task.picture, ScatterPicture) and task.picture.points:
        return _render_scatter(task.picture)
    return ""


def _render_confusion(picture: ConfusionPicture) -> str:
    title = f"<h3>Confusion matrix: {picture.wrong:,} of {picture.rows:,} test rows are wrong</h3>"
    if not picture.names:
        rows = "".join(
            f"<tr><td>{escape(each.truth)}</td><td>{escape(each.answer)}</td>"
            f'<td class="number">{each.count:,}</td></tr>'
            for each in picture.mistakes
        )
        head = '<th scope="col">true class</th><th scope="col">predicted class</th><th scope="col">rows</th>'
        return (
            f'{title}<p class="note">The most frequent mistakes among {picture.classes:,} classes.</p>'
            f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        )
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in picture.names)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{_render_counts(counts, place)}</tr>'
        for place, (name, counts) in enumerate(zip(picture.names, picture.counts, strict=False))
    )
    return (
        f'{title}<div class="wide"><table class="confusion"><thead><tr><th>true, predicted →</th>{head}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>{_render_class_scores(picture)}"
    )


def _render_class_scores(picture: ConfusionPicture) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in ("rows", "precision", "recall", "F1"))
    rows = "".join(
        f'<tr><th scope="row">{escape(each.name)}</th><td>{each.rows:,}</td>'
        f"<td>{format_share(each.precision)}</td><td>{format_share(each.recall)}</td><td>{each.f1:.3f}</td></tr>"
        for each in list_class_scores(picture)
    )
    return (
        '<h3>Precision and recall by class</h3><div class="wide"><table class="classes"><thead><tr>'
        f'<th scope="col">class</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _render_counts(counts: tuple[int, ...], right: int) -> str:
    total = max(1, sum(counts))
    cells = []
    for place, count in enumerate(counts):
        # Shares of the true class, in steps: a page without inline styles has no others.
        shade = f"s{max(1, round(_SHADES * count / total))}" if count else "zero"
        style = f"{shade} right" if place == right else shade
        cells.append(f'<td class="{style}">{f"{count:,}" if count else "·"}</td>')
    return "".join(cells)


def _render_scatter(picture: ScatterPicture) -> str:
    values = [value for point in picture.points for value in point]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        return (value - low) / span * _SIDE

    dots = "".join(
        f'<circle cx="{_LEFT + place(truth):.1f}" cy="{_SIDE - place(guess) + 8:.1f}" r="3"/>'
        for truth, guess in picture.points
    )
    bottom, right = _SIDE + 8, _LEFT + _SIDE
    shown = len(picture.points)
    note = f"{shown:,} of {picture.rows:,} test rows" if shown < picture.rows else f"{shown:,} test rows"
    return (
        f"<h3>True and predicted values: {note}</h3>"
        f'<svg class="scatter" role="img" aria-label="Predicted beside true values of {note}, '
        f'from {low:.3g} to {high:.3g}" viewBox="0 0 {right + 12} {bottom + _MARGIN}">'
        f'<rect class="frame" x="{_LEFT}" y="8" width="{_SIDE}" height="{_SIDE}"/>'
        f'<line class="equal" x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="8"/>{dots}'
        f'<text x="{_LEFT}" y="{bottom + 14}">{low:.3g}</text>'
        f'<text x="{right}" y="{bottom + 14}" text-anchor="end">{high:.3g}</text>'
        f'<text x="{_LEFT + _SIDE / 2}" y="{bottom + 28}" text-anchor="middle">true value</text>'
        f'<text x="{_LEFT - 6}" y="{bottom}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{_LEFT - 6}" y="18" text-anchor="end">{high:.3g}</text>'
        f'<text x="14" y="{8 + _SIDE / 2}" text-anchor="middle" transform="rotate(-90 14 {8 + _SIDE / 2})">'
        "predicted value</text></svg>"
    )


def _render_examples(task: TaskFacts) -> str:
    summary = describe_changes(task)
    if not summary or task.gain is None or task.gain.changes is None:
        return ""
    old, new = f"v{task.gain.version}", f"v{task.version}"
    rows = "".join(_render_example(row, old, new) for row in task.gain.changes.rows)
    return f"<h3>{escape(summary)}</h3>" + (f'<ul class="rows">{rows}</ul>' if rows else "")


def _render_example(row: ChangedRow, old: str, new: str) -> str:
    texts = "".join(f"<p>{escape(text)}</p>" for text in row.texts.values()) or "<p>(an image)</p>"
    answers = (("right", row.truth), (old, row.before), (new, row.now))
    shown = "; ".join(f"{name}: <strong>{escape(answer)}</strong>" for name, answer in answers)
    return f'<li>{texts}<p class="answers">{shown}</p></li>'
