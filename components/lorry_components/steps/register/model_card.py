"""The README of an adapter: what a person wants to know before using it."""

from lorry_components.task_types import TASK_TYPES, TaskType
from lorry_components.task_types.input_form import LINEAR_PROBE
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_registry.linear_probe import describe_linear_probe
from lorry_registry.manifest import Manifest


def render_card(manifest: Manifest, plain_use: str = "") -> str:
    """Return a model card in Markdown, with the front matter that model hubs read. It holds no time.

    Args:
        manifest: The adapter.
        plain_use: Python that uses it without Lorry; empty: nothing is said of that.
    """
    evaluation = manifest.evaluation
    metrics = "\n".join(
        f"| {name}{' (primary)' if name == evaluation.primary else ''} | {metric.value:.4f} "
        f"| {metric.low:.4f} to {metric.high:.4f} |"
        for name, metric in evaluation.metrics.items()
    )
    labels = f"\nClasses: {', '.join(manifest.labels)}.\n" if manifest.labels else ""
    probe = describe_linear_probe(manifest.method, evaluation) or _say_not_compared(manifest)
    comparison = f"\n{probe}\n" if probe else ""
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(manifest.libraries.items()))
    return f"""---
base_model: {manifest.base.model}
library_name: peft
tags: [lorry, {manifest.kind}, {manifest.method}]
---

# {manifest.task}

{manifest.description or f"A {manifest.method} adapter for the task {manifest.task}."}
{labels}
Only the adapter is here. It belongs on the frozen base **{manifest.base.model}** \
({manifest.base.architecture}, fingerprint `{manifest.base.fingerprint}`).

| {evaluation.split} metric ({evaluation.examples} rows) | value | 95 % interval |
|---|---|---|
{metrics}
{comparison}
- Method: {manifest.method}; {manifest.parameters.adapter:,} numbers in the adapter and \
{manifest.parameters.head:,} in the head, of {manifest.parameters.total:,} in all.
- Owner: {manifest.owner or "not named"}.
- Trained with {libraries}.

## Use

    lorry predict {manifest.task} "some text"

or from Python, through MLflow:

    mlflow.pyfunc.load_model("models:/{manifest.task}@champion").predict(["some text"])
{_render_plain_use(plain_use)}"""


def _say_not_compared(manifest: Manifest) -> str:
    has_probe = issubclass(TASK_TYPES.get(manifest.kind, TaskType), SequenceHeadTaskType)
    if not has_probe or manifest.method == LINEAR_PROBE:
        return ""
    return "It was not compared with a linear probe on the frozen base."


def _render_plain_use(code: str) -> str:
    if not code:
        return ""
    return f"""
Without Lorry, where `base` is the folder of the base, `folder` this one, and `texts` is a list:

```python
{code}```
"""
