"""The overview of all tasks as one HTML file. What comes from the ledger is escaped; no script of it runs."""

import base64
import hashlib
import importlib.resources
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from string import Template

from lorry_registry.errors import LorryError
from lorry_registry.ledger.version_status import describe_change, describe_promotion, name_version_status
from lorry_registry.manifest import Manifest
from lorry_registry.pages.task_overview import TaskOverview, VersionOverview
from lorry_registry.pages.trend import draw_trend, is_sound
from lorry_registry.records.adapter_names import label_method, shorten_base
from lorry_registry.text.scrubbing import scrub_text
from lorry_registry.text.sizes import format_size

_NOTHING = '<span class="none">-</span>'
# Days -> the unit in which an age is shown, the largest that fits.
_UNITS = ((365.25, "year"), (30.44, "month"), (7.0, "week"), (1.0, "day"))


def render_tasks(
    tasks: Sequence[TaskOverview], problems: Mapping[str, LorryError], *, store: str, now: datetime
) -> str:
    """Return the page.

    Args:
        tasks: What is known of each task.
        problems: The tasks that cannot be read, and why.
        store: The address of the store, as it may be shown.
        now: When the page is written; ages are counted to this moment.
    """
    style, script = _read("tasks.css"), _read("tasks.js")
    return Template(_read("tasks.html")).substitute(
        style=style,
        script=script,
        style_hash=_hash_source(style),
        script_hash=_hash_source(script),
        store=escape(scrub_text(store)),
        written=now.astimezone(UTC).strftime("%-d %B %Y, %H:%M UTC"),
        summary=_summarize(tasks),
        problems="".join(
            f'<p class="problem"><strong>{escape(name)}</strong> cannot be read: '
            f"{escape(scrub_text(str(error)))}</p>"
            for name, error in problems.items()
        ),
        rows="\n".join(_render_task(task, now) for task in tasks),
        table_class="" if tasks else " hidden",
        empty="" if tasks else '<p class="empty">No task has an adapter yet.</p>',
    )


def _summarize(tasks: Sequence[TaskOverview]) -> str:
    versions = sum(task.count for task in tasks)
    size = sum(task.manifest.size_bytes for task in tasks if task.manifest and task.champion is not None)
    bases = {task.manifest.base.fingerprint for task in tasks if task.manifest}
    return " · ".join(
        [
            _count(len(tasks), "task"),
            _count(versions, "version"),
            f"champions of {format_size(size, compact=True)} on {_count(len(bases), 'frozen base')}",
        ]
    )


def _render_task(task: TaskOverview, now: datetime) -> str:
    manifest = task.manifest
    headline = manifest.evaluation.headline if manifest and task.champion is not None else None
    keys = {
        "task": task.task,
        "value": f"{headline.value:.9g}" if headline else "",
        "method": label_method(manifest.recipe) if manifest else "",
        "base": shorten_base(manifest.base.model) if manifest else "",
        "size": str(manifest.size_bytes) if manifest and headline else "",
        "promoted": task.promoted_at.isoformat() if task.promoted_at else "",
    }
    attributes = " ".join(f'data-{name}="{escape(value, quote=True)}"' for name, value in keys.items())
    cells = (
        _render_name(task, manifest),
        _cell("Champion", _render_champion(task), "number"),
        _cell("Metric", _render_metric(task, manifest), "number"),
        _cell(
            "Trend",
            draw_trend(
                task.versions,
                manifest.evaluation.name_metric(manifest.evaluation.primary) if manifest else "",
                manifest.evaluation.best_baseline if manifest else None,
            ),
        ),
        _cell("Method", escape(keys["method"] or (manifest.method if manifest else "")) or _NOTHING),
        _cell("Base", _render_base(manifest)),
        _cell("Size", _render_size(manifest, is_shown=headline is not None), "number"),
        _cell("Promoted", _render_age(task.promoted_at, now), "number"),
    )
    more = f"{_render_warnings(task)}{_render_versions(task)}"
    return (
        f'<tbody role="rowgroup" {attributes}>\n<tr role="row">{"".join(cells)}</tr>\n'
        f'<tr role="row" class="more"><td role="cell" colspan="8">{more}</td></tr>\n'
        "</tbody>"
    )


def _render_name(task: TaskOverview, manifest: Manifest | None) -> str:
    text = " ".join(manifest.description.split()) if manifest else ""
    owner = f' <span class="owner">{escape(manifest.owner)}</span>' if manifest and manifest.owner else ""
    kind = escape(manifest.kind) if manifest else ""
    return (
        f'<th role="rowheader" scope="row"><span class="name">{escape(task.task)}</span>'
        f'<span class="about">{escape(text)}</span><span class="kind">{kind}{owner}</span></th>'
    )


def _render_champion(task: TaskOverview) -> str:
    if not task.champion:
        return '<span class="none">none yet</span>'
    how = next(
        (describe_promotion(each.status) for each in task.versions if each.number == task.champion), ""
    )
    return f"<strong>v{task.champion}</strong>" + (f'<span class="interval">{how}</span>' if how else "")


def _render_metric(task: TaskOverview, manifest: Manifest | None) -> str:
    if manifest is None or task.champion is None:
        return _NOTHING
    evaluation = manifest.evaluation
    headline = evaluation.headline
    return (
        f'<span class="value">{headline.value:.3f}</span>'
        f'<span class="interval">{escape(evaluation.name_metric(evaluation.primary))}</span>'
        f'<span class="interval">{headline.low:.3f} to {headline.high:.3f}</span>'
        + _render_baseline(manifest)
    )


def _render_baseline(manifest: Manifest) -> str:
    best = manifest.evaluation.best_baseline
    return f'<span class="interval">{escape(best.name)} {best.value:.3f}</span>' if best else ""


def _render_base(manifest: Manifest | None) -> str:
    if manifest is None:
        return _NOTHING
    full = scrub_text(manifest.base.model)
    short = shorten_base(full)
    return f'<span class="base" title="{escape(full, quote=True)}">{escape(short)}</span>'


def _render_size(manifest: Manifest | None, *, is_shown: bool) -> str:
    if manifest is None or not is_shown:
        return _NOTHING
    size = format_size(manifest.size_bytes, compact=True)
    return f'{size}<span class="interval">{manifest.parameters.trained:,} trained</span>'


def _render_age(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return _NOTHING
    shown = moment.astimezone(UTC)
    return (
        f'<time datetime="{shown.isoformat()}">{shown:%Y-%m-%d}</time>'
        f'<span class="interval">{_format_age(now - moment)}</span>'
    )


def _format_age(age: timedelta) -> str:
    days = age / timedelta(days=1)
    for length, unit in _UNITS:
        if days >= length:
            return f"{_count(int(days / length), unit)} ago"
    return "today"


def _render_warnings(task: TaskOverview) -> str:
    if not task.warnings:
        return ""
    items = "".join(f"<li>{escape(scrub_text(warning))}</li>" for warning in task.warnings)
    return f'<div class="warnings">Of its data:<ul>{items}</ul></div>\n'


def _render_versions(task: TaskOverview) -> str:
    newest = task.versions[-1] if task.versions else None
    if newest is None:
        return ""
    shown = f", the newest {len(task.versions)} of them" if len(task.versions) < task.count else ""
    items = "\n".join(_render_version(version) for version in reversed(task.versions))
    return (
        f"<details><summary>{_count(task.count, 'version')}{shown}; "
        f"v{newest.number} {escape(name_version_status(newest.status))}</summary>\n"
        f'<ol class="versions">\n{items}\n</ol></details>'
    )


def _render_version(version: VersionOverview) -> str:
    status, metric = version.status, version.metric
    style = "champion" if status.role == "champion" else "former" if is_sound(status) else "refused"
    figure = f"{metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f})" if metric else "not in the store"
    lines = [scrub_text(reason) for reason in status.reasons]
    lines += [scrub_text(describe_change(event, version.number)) for event in status.changes]
    reasons = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return (
        f'<li class="{style}"><span class="number">v{version.number}</span> '
        f'<span class="status">{escape(name_version_status(status))}</span> '
        f'<span class="figure">{figure}</span> <span class="how">{escape(version.method)}</span> '
        f'<span class="when">{version.registered.at.astimezone(UTC):%Y-%m-%d}, '
        f"{escape(version.registered.by)}</span><ul>{reasons}</ul></li>"
    )


def _cell(label: str, content: str, style: str = "") -> str:
    # On a telephone the table becomes a list of cards, in which each value has its heading beside it.
    known = "" if content != _NOTHING else " unknown"
    return f'<td role="cell" data-label="{label}" class="{style}{known}">{content}</td>'


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _read(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash_source(source: str) -> str:
    # The page's policy lets nothing run but the script that has this digest.
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode("ascii")
