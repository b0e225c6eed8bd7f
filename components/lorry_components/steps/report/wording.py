"""The sentences of a report: Markdown and page say the same in the same words."""

from collections.abc import Iterator

from lorry_components.progress import format_seconds
from lorry_components.steps.report.facts import DataFacts, GainFacts, TaskFacts
from lorry_components.steps.runtime.outcomes import STEPS
from lorry_registry.records.adapter_facts import NOTHING, describe_baselines, describe_probe, describe_size
from lorry_registry.records.training_record import ONLY_HEAD

P_VALUE_NOTE = (
    "p is the probability of such a gain on the same test rows if the true one is not above the minimum gain "
    "of the task (one-sided)."
)
_LEAST_P = 0.001
_LISTED_CLASSES = 8
_PARTS = ("train", "validation", "test")


def name_status(task: TaskFacts) -> str:
    """Return the outcome in a word or two."""
    if task.status == "failed":
        return f"failed in {task.step}"
    if task.status == "promoted" and _is_superseded(task):
        return "promoted then"
    return {"challenger": "refused", "current": "up to date"}.get(task.status, task.status)


def is_idle(task: TaskFacts) -> bool:
    """Return whether there was nothing to train: the first step ended the task."""
    return task.status == "current" or (task.status == "challenger" and task.step == STEPS[0])


def tell_decision(task: TaskFacts) -> str:
    """Return the verdict on a task in one sentence; :func:`list_reasons` are for the lines after it."""
    version, champion = _name(task.version), _name(task.champion)
    if task.status == "promoted":
        since = f" Since then {champion} has become the champion." if _is_superseded(task) else ""
        return _tell_promotion(task, version) + since
    if is_idle(task):
        return f"There was nothing to train: {_join(task.reasons)}."
    if task.status == "challenger":
        figure = f" with {task.headline.title} {task.headline.value:.3f}" if task.headline else ""
        is_beaten = task.champion is not None and task.champion != task.version
        stays = f", champion {champion}{_format_champion(task)}" if is_beaten else ""
        return f"Not promoted: {version}{figure}{stays}."
    if task.status == "unchanged":
        return f"Training gave {version} again, byte for byte, so that nothing changed."
    return f"The task failed in {task.step}: {_join(task.reasons)}"


def list_reasons(task: TaskFacts) -> tuple[str, ...]:
    """Return the reasons for a verdict whose sentence has none: those against a refused version, first."""
    is_refused = task.status == "challenger" and not is_idle(task)
    has_unmeasured_gain = task.status == "promoted" and task.gain is not None and task.gain.gain is None
    return (task.against or task.reasons) if is_refused or has_unmeasured_gain else ()


def _tell_promotion(task: TaskFacts, version: str) -> str:
    gain, headline = task.gain, task.headline
    if gain is None:
        figure = f" with {headline.title} {headline.value:.3f}" if headline else ""
        return f"Promoted: {version}{figure}, the first champion."
    if gain.gain is None:
        return f"Promoted: {version} in place of v{gain.version}."
    rows = f" on the same {gain.rows:,} test rows" if gain.rows else ""
    test = f", {format_p(gain.p_value)}" if gain.p_value is not None else ""
    title = f" in {headline.title}" if headline else ""
    return f"Promoted: {version} in place of v{gain.version}, {gain.gain:+z.3f}{title}{rows}{test}."


def _format_champion(task: TaskFacts) -> str:
    gain = task.gain
    known = gain is not None and gain.version == task.champion and gain.value is not None
    return f" with {gain.value:.3f}" if known and gain is not None else ""


def format_gain(task: TaskFacts) -> str:
    """Return the gain over the champion with its p-value, for a column."""
    gain = task.gain
    if gain is None or gain.gain is None:
        return NOTHING
    return f"{gain.gain:+z.3f}" + (f" ({format_p(gain.p_value)})" if gain.p_value is not None else "")


def format_p(value: float) -> str:
    """Return a p-value with its sign of equality."""
    return f"p < {_LEAST_P:g}" if value < _LEAST_P else f"p = {value:.3f}"


def format_best_baseline(task: TaskFacts) -> str:
    """Return the best trivial baseline, with its value."""
    return f"{task.baselines[0].name} {task.baselines[0].value:.3f}" if task.baselines else NOTHING


def format_probe(task: TaskFacts) -> str:
    """Return the value of the linear probe."""
    return f"{task.probe.value:.3f}" if task.probe else NOTHING


def format_share(value: float | None) -> str:
    """Return a share of rows; of no rows at all there is none."""
    return NOTHING if value is None else f"{value:.3f}"


def list_points(task: TaskFacts) -> Iterator[tuple[str, str]]:
    """Yield what else there is to say of a task: a heading of a word or two, and a sentence."""
    if task.gain is not None:
        yield "Old version", _describe_former(task, task.gain)
    if task.single_answer:
        yield "Single answer", f"It answers every test row with {task.single_answer!r}."
    if task.kept_start:
        yield ONLY_HEAD, f"{task.kept_start}."
    if task.probe is not None:
        yield "Linear probe", describe_probe(task.probe)
    if task.baselines:
        yield "Trivial baseline", describe_baselines(task)
    if task.why:
        yield "Trained because", task.why
    data = "; ".join(_describe_data(task.data))
    if data:
        yield "Data", data
    for warning in filter(None, (*task.data.warnings, task.validation_gap)):
        yield "Warning", warning
    if task.size is not None:
        yield "Size", _describe_size(task)
    if task.method:
        before = task.method_before
        changed = f" (before: {before})" if before and before != task.method else ""
        yield "Method", f"{task.method}{changed}" + (f" on {task.base}" if task.base else "")
    times = _describe_times(task)
    if times:
        yield "Time", times


def describe_changes(task: TaskFacts) -> str:
    """Return how many single rows changed; empty: they were not compared."""
    changes = task.gain.changes if task.gain else None
    if task.gain is None or changes is None:
        return ""
    shown = f"; {len(changes.rows)} of the worse ones" if changes.rows else ""
    return (
        f"{_name(task.version)} answers {changes.better:,} test rows better than v{task.gain.version} and "
        f"{changes.worse:,} worse{shown}"
    )


def _describe_former(task: TaskFacts, gain: GainFacts) -> str:
    name, title = f"v{gain.version}", task.headline.title if task.headline else "it"
    if gain.value is None:
        return f"{name}, for which {title} is not known" + (f": {gain.problem}" if gain.problem else "")
    if gain.is_recorded:
        problem = f"; it could not be loaded: {gain.problem}" if gain.problem else ""
        return f"{name} had {title} {gain.value:.3f} when it was registered{problem}"
    then = (
        f", and {gain.recorded:.3f} on those of its registration"
        if gain.recorded is not None and abs(gain.recorded - gain.value) >= 0.0005
        else ""
    )
    left = f"; {gain.left_out:,} rows that it was trained on are left out" if gain.left_out else ""
    return f"{name} has {title} {gain.value:.3f} on the same rows{then}{left}"


def _describe_data(data: DataFacts) -> Iterator[str]:
    if data.rows:
        parts = ", ".join(
            f"{_compare_counts(data.rows_before.get(part), data.rows[part])} {part}"
            for part in sorted(data.rows, key=_place_part)
        )
        source = f" from {data.source}" if data.source else ""
        yield f"{parts} rows{source}"
    moved = {
        name: (data.labels_before.get(name, 0), data.labels.get(name, 0))
        for name in sorted({*data.labels, *data.labels_before})
        if data.labels_before and data.labels_before.get(name, 0) != data.labels.get(name, 0)
    }
    if moved:
        listed = [
            f"{name} {before:,} → {now:,}" for name, (before, now) in list(moved.items())[:_LISTED_CLASSES]
        ]
        more = len(moved) - len(listed)
        yield "training rows by class: " + ", ".join([*listed, *([f"and {more} more"] if more > 0 else [])])
    if data.dropped:
        yield "left out: " + ", ".join(
            f"{count:,} {reason}" for reason, count in data.dropped.items() if count
        )


def _place_part(part: str) -> tuple[int, str]:
    return (_PARTS.index(part) if part in _PARTS else len(_PARTS), part)


def _compare_counts(before: int | None, now: int) -> str:
    return f"{now:,}" if before is None or before == now else f"{before:,} → {now:,}"


def _describe_size(task: TaskFacts) -> str:
    now, before = task.size, task.size_before
    assert now is not None
    return describe_size(now) + (f" (before: {describe_size(before)})" if before and before != now else "")


def _describe_times(task: TaskFacts) -> str:
    total = sum(task.seconds.values())
    if not total:
        return ""
    training = (
        f", {format_seconds(task.train_seconds)} of them training" if task.train_seconds is not None else ""
    )
    device = f" on {task.device}" if task.device else ""
    return f"{format_seconds(total)}{training}{device}"


def _is_superseded(task: TaskFacts) -> bool:
    return task.champion is not None and task.champion != task.version


def _name(version: int | None) -> str:
    return f"v{version}" if version is not None else "no version"


def _join(reasons: tuple[str, ...]) -> str:
    return "; ".join(reasons).rstrip(".") or "no reason was given"
