"""What MLflow shows about an adapter: the tags and the description of a version."""

from collections.abc import Sequence

from lorry_registry.manifest import Manifest
from lorry_registry.sizes import format_size

DECISION_TAG = "lorry.decision"

_CARD = """\
**{title}**

An adapter (`{method}`) for the task `{task}`, a {kind} on the frozen base `{base}`. \
It holds no weights of the base.

| metric | value | 95 % interval |
|---|---:|---|
{metrics}

Measured on {examples:,} examples of the {split} split. The gate decides by **{primary}**.

| | |
|---|---|
| Version in Lorry's ledger | v{version} |
| Adapter | `{adapter_id}` |
| Method | {method} |
| Base | `{base}`{revision}, {architecture} |
| Base fingerprint | `{fingerprint}` |
| Trained parameters | {trained:,} of {total:,}: {adapter:,} in the adapter, {head:,} in the head |
| Size | {size} |
| Labels | {labels} |
| Owner | {owner} |

**{verdict}**

{reasons}

**Load it**

```python
import mlflow

model = mlflow.pyfunc.load_model("models:/{task}@champion")
model.predict(["a text"])
```

```sh
lorry predict {task} "a text"
```
"""


def list_version_tags(manifest: Manifest, *, version: int, adapter_id: str, promoted: bool) -> dict[str, str]:
    """Return the tags of a version in MLflow, by which it can be searched for."""
    metrics = manifest.evaluation.metrics
    return {
        "lorry.task": manifest.task,
        "lorry.version": str(version),
        "lorry.adapter_id": adapter_id,
        "lorry.method": manifest.method,
        "lorry.base": manifest.base.model,
        "lorry.base_fingerprint": manifest.base.fingerprint,
        **{f"lorry.metric.{name}": f"{metric.value:.6g}" for name, metric in metrics.items()},
        "lorry.trained_parameters": str(manifest.parameters.trained),
        "lorry.size_bytes": str(manifest.size_bytes),
        DECISION_TAG: name_decision(promoted),
    }


def name_decision(promoted: bool) -> str:
    """Return the gate's decision as tags name it."""
    return "promoted" if promoted else "refused"


def describe_version(
    manifest: Manifest, *, version: int, adapter_id: str, reasons: Sequence[str], promoted: bool
) -> str:
    """Return a version's description in Markdown: what it is, how good, why it stands, how to load it."""
    evaluation, base, parameters = manifest.evaluation, manifest.base, manifest.parameters
    return _CARD.format(
        title=_flatten(manifest.description) or f"{manifest.task} v{version}",
        task=manifest.task,
        kind=manifest.kind,
        version=version,
        adapter_id=adapter_id,
        method=manifest.method,
        metrics="\n".join(
            f"| {name} | {metric.value:.4f} | {metric.low:.4f} to {metric.high:.4f} |"
            for name, metric in evaluation.list_metrics()
        ),
        examples=evaluation.examples,
        split=evaluation.split,
        primary=evaluation.primary,
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
        verdict="The gate let it pass" if promoted else "The gate refused it: a challenger",
        reasons="\n".join(f"- {_flatten(reason)}" for reason in reasons) or "- no reason was given",
    )


def _flatten(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
