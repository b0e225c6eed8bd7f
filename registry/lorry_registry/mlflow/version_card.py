"""The tags and the description of an adapter in MLflow: of its version, its run and its model."""

from lorry_registry.ledger.version_status import (
    VersionStatus,
    describe_change,
    explain_status,
    name_version_status,
)
from lorry_registry.manifest import Manifest
from lorry_registry.mlflow.kubeflow_pages import NOTE_START
from lorry_registry.records.adapter_names import shorten_base
from lorry_registry.records.probe_description import describe_linear_probe
from lorry_registry.records.training_record import TrainingRecord, describe_training
from lorry_registry.text.sizes import format_size

DECISION_TAG = "lorry.decision"
STATUS_TAG = "lorry.status"
INTERVAL_TAG = "lorry.interval"
# What MLflow's pages show as the description of a run or an experiment.
NOTE_TAG = "mlflow.note.content"

_UNKNOWN = TrainingRecord()
_SUMMARIES = ("Champion: ", "Former champion: ", "Refused: ", "Rolled back: ", NOTE_START)
_RUN_TAGS = frozenset(
    {
        *("lorry.task", "lorry.version", "lorry.kind", "lorry.method", "lorry.base"),
        *("lorry.metric", "lorry.positive", "lorry.value", INTERVAL_TAG, "lorry.adapter_id"),
    }
)

# MLflow draws tables without any space between columns; the wide blanks in the widest cells make some. The
# first line is what its lists of versions show, where Markdown is not drawn.
_CARD = """\
{summary}

**{title}**

An adapter (`{method}`) for the task `{task}`, a {kind} on the frozen base `{base}`. \
It holds no weights of the base.

| metric&emsp;&emsp;&emsp;&emsp; | value&emsp;&emsp; | 95 % interval |
|---|---:|---:|
{metrics}

Measured on {examples:,} examples of the {split} split. The gate decides by **{primary}**.
{baselines}
{probe}{changes}
**{verdict}**

{reasons}
{warnings}
**Load this version**

```python
import mlflow

{connect}model = mlflow.pyfunc.load_model("{address}")
model.predict({example})
```

```sh
lorry predict {task} {texts} --version v{version}
```
{champion}
**How it was trained**

| | |
|---|---|
{training}

**What it is**

| | |
|---|---|
| Version in Lorry's ledger&emsp; | v{version} |
| Adapter | `{adapter_id}` |
| Base | `{base}`{revision}, {architecture} |
| Base fingerprint | `{fingerprint}` |
| Trained parameters | {trained:,} of {total:,}: {adapter:,} in the adapter, {head:,} in the head |
| Size | {size} |
| Labels | {labels} |
| Owner | {owner} |
"""

_CHAMPION = """
It is the champion: `models:/{task}@champion` and `lorry predict {task} {texts}` name it for as long as it is.
"""


def list_version_tags(manifest: Manifest, *, version: int, adapter_id: str, promoted: bool) -> dict[str, str]:
    """Return the tags of a version in MLflow, by which it can be searched for.

    They follow from the adapter and the gate's decision; what changes later is in ``list_status_tags``.
    """
    evaluation = manifest.evaluation
    headline = evaluation.headline
    return {
        "lorry.task": manifest.task,
        "lorry.version": str(version),
        DECISION_TAG: name_decision(promoted),
        "lorry.metric": evaluation.primary,
        "lorry.value": f"{headline.value:.6g}",
        INTERVAL_TAG: f"{headline.low:.3f} to {headline.high:.3f}",
        "lorry.kind": manifest.kind,
        "lorry.method": manifest.method,
        "lorry.base": manifest.base.model,
        **({"lorry.positive": evaluation.positive} if evaluation.positive is not None else {}),
        **{f"lorry.metric.{name}": f"{metric.value:.6g}" for name, metric in evaluation.metrics.items()},
        "lorry.trained_parameters": str(manifest.parameters.trained),
        "lorry.size_bytes": str(manifest.size_bytes),
        "lorry.adapter_id": adapter_id,
        "lorry.base_fingerprint": manifest.base.fingerprint,
    }


def list_status_tags(status: VersionStatus) -> dict[str, str]:
    """Return the tags of a version that follow the ledger: the last word on it, and whether it is in use."""
    return {DECISION_TAG: status.decision, STATUS_TAG: status.role}


def list_run_tags(
    manifest: Manifest, status: VersionStatus, record: TrainingRecord = _UNKNOWN
) -> dict[str, str]:
    """Return the tags of the run that trained a version, the text that MLflow shows of it among them."""
    tags = list_version_tags(
        manifest, version=status.version, adapter_id=status.adapter_id, promoted=status.passed
    )
    kept = {key: value for key, value in tags.items() if key in _RUN_TAGS}
    changes = [describe_change(event, status.version) for event in status.changes]
    warnings = [f"about its data: {warning}" for warning in record.warnings]
    # What was done last is what counts.
    lines = "\n".join(f"- {_flatten(line)}" for line in (*reversed(changes), *status.reasons, *warnings))
    note = f"{summarize_version(manifest, status, record)}\n\n{lines}".strip()
    return kept | list_status_tags(status) | {NOTE_TAG: note}


def list_model_tags(manifest: Manifest, champion: VersionStatus | None) -> dict[str, str]:
    """Return the tags of a task's registered model: what its champion is, and how good.

    Args:
        manifest: The champion, or the newest adapter if there is none.
        champion: How the champion stands; None: there is none.
    """
    evaluation = manifest.evaluation
    return {
        "lorry.kind": manifest.kind,
        "lorry.method": manifest.method,
        "lorry.base": manifest.base.model,
        "lorry.version": str(champion.version) if champion else "none",
        "lorry.metric": evaluation.primary,
        "lorry.value": f"{evaluation.headline.value:.6g}" if champion else "none",
    }


def name_decision(promoted: bool) -> str:
    """Return the gate's decision as tags name it."""
    return "promoted" if promoted else "refused"


def summarize_version(manifest: Manifest, status: VersionStatus, record: TrainingRecord = _UNKNOWN) -> str:
    """Return what matters of a version on one line of plain text."""
    evaluation = manifest.evaluation
    headline = evaluation.headline
    method = record.label_method(manifest.recipe) or manifest.method
    return (
        f"{name_version_status(status).capitalize()}: {evaluation.name_metric(evaluation.primary)} "
        f"{headline.value:.3f} "
        f"({headline.low:.3f} to {headline.high:.3f}), {method} "
        f"on {shorten_base(manifest.base.model)}"
    )


def is_own_note(text: str) -> bool:
    """Return whether a run's description is one of ours, and not a person's notes."""
    return text.startswith(_SUMMARIES)


def describe_version(
    manifest: Manifest,
    status: VersionStatus,
    *,
    number: str,
    tracking_address: str = "",
    record: TrainingRecord = _UNKNOWN,
) -> str:
    """Return a version's description in Markdown: what it is, how good, why it stands, how to load it.

    Args:
        manifest: The adapter.
        status: Its status in the ledger.
        number: MLflow's number of the version, by which it is loaded.
        tracking_address: Where this MLflow is, without a secret; empty: nothing is said of it.
        record: What is kept of its training beside the manifest.
    """
    evaluation, base, parameters = manifest.evaluation, manifest.base, manifest.parameters
    task, texts = manifest.task, '"a text"'
    has_pair = "text_pair" in manifest.probe.rows[0]
    if has_pair:
        texts += ' --pair "the other"'
    return _CARD.format(
        summary=summarize_version(manifest, status, record),
        title=_flatten(manifest.description) or f"{manifest.task} v{status.version}",
        task=task,
        kind=manifest.kind,
        version=status.version,
        adapter_id=status.adapter_id,
        method=manifest.method,
        metrics="\n".join(
            f"| {_flatten(manifest.evaluation.name_metric(name))} "
            f"| {metric.value:.4f} | {metric.low:.4f} to {metric.high:.4f} |"
            for name, metric in evaluation.list_metrics()
        ),
        examples=evaluation.examples,
        split=evaluation.split,
        primary=_flatten(manifest.evaluation.name_metric(evaluation.primary)),
        baselines=_list_baselines(manifest),
        probe=f"\n{probe}\n" if (probe := describe_linear_probe(manifest.method, evaluation)) else "",
        base=base.model,
        revision=f" at `{base.revision}`" if base.revision else "",
        architecture=base.architecture,
        fingerprint=base.fingerprint,
        trained=parameters.trained,
        total=parameters.total,
        adapter=parameters.adapter,
        head=parameters.head,
        size=format_size(manifest.size_bytes),
        labels=_flatten(", ".join(manifest.labels or ())) or "no classes",
        owner=_flatten(manifest.owner) or "not given",
        verdict=_describe_verdict(status),
        reasons="\n".join(f"- {_flatten(reason)}" for reason in status.reasons) or "- no reason was given",
        changes=_list_changes(status),
        warnings=_list_warnings(record),
        training=_list_training(manifest, record),
        connect=f'mlflow.set_tracking_uri("{tracking_address}")\n' if tracking_address else "",
        address=f"models:/{task}/{number}",
        example='[{"text": "a text", "text_pair": "the other"}]' if has_pair else '["a text"]',
        texts=texts,
        champion=_CHAMPION.format(task=task, texts=texts) if status.role == "champion" else "",
    )


def describe_model(task: str, description: str, base: str) -> str:
    """Return the description of a task's registered model and experiment, in plain text on one line."""
    return " ".join(description.split()) or f"Adapters for the task {task} on {base}."


def _describe_verdict(status: VersionStatus) -> str:
    beaten = f": it won against v{status.beaten}" if status.beaten else ""
    if status.changes:
        # What counts now is said above.
        return f"At its registration, the gate {f'let it pass{beaten}' if status.passed else 'refused it'}"
    return f"The gate let it pass{beaten}" if status.passed else "The gate refused it: a challenger"


def _list_baselines(manifest: Manifest) -> str:
    """Return a sentence about the trivial baselines, or nothing if there are none."""
    evaluation = manifest.evaluation
    if not evaluation.baselines:
        return ""
    shown = "; ".join(
        f"the {baseline.name} has {baseline.value:.4f}, the adapter {baseline.gain:+.4f} on the same "
        f"{baseline.examples:,} examples"
        for baseline in evaluation.baselines
    )
    return f"\nTrivial baselines: {shown}.\n"


def _list_changes(status: VersionStatus) -> str:
    if not status.changes:
        return ""
    changes = reversed(status.changes)
    lines = "\n".join(f"- {_flatten(describe_change(event, status.version))}" for event in changes)
    return f"\n**{explain_status(status)}**\n\n{lines}\n"


def _list_warnings(record: TrainingRecord) -> str:
    if not record.warnings:
        return ""
    lines = "\n".join(f"- {_flatten(warning)}" for warning in record.warnings)
    return f"\n**To know of its data**\n\n{lines}\n"


def _list_training(manifest: Manifest, record: TrainingRecord) -> str:
    lines = describe_training(manifest, record)
    return "\n".join(f"| {name}&emsp; | {_flatten(text)} |" for name, text in lines.items())


def _flatten(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
