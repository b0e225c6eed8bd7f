"""The README of an adapter: what a person wants to know before using it."""

from collections.abc import Mapping, Sequence
from typing import Any

from lorry_components.steps.register.client_notes import is_readable_by_peft, list_client_notes
from lorry_components.task_types import TASK_TYPES, TaskType
from lorry_components.task_types.input_form import LINEAR_PROBE
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_registry.manifest import Manifest
from lorry_registry.records.adapter_facts import (
    describe_baselines,
    describe_probe,
    format_interval,
    read_adapter,
)


def render_card(manifest: Manifest, config: Mapping[str, Any], peft_usage: str = "") -> str:
    """Return a model card in Markdown, with the front matter that model hubs read. It holds no time.

    Args:
        manifest: The adapter.
        config: Its stored configuration, ``adapter_config.json``.
        peft_usage: Python that uses it without Lorry; empty: nothing is said of that.
    """
    facts = read_adapter(manifest)
    metrics = "\n".join(
        f"| {metric.title}{' (primary)' if metric is facts.headline else ''} | {metric.value:.3f} | "
        f"{format_interval(metric)} |"
        for metric in facts.metrics
    )
    probe = describe_probe(facts.probe) if facts.probe else _say_not_compared(manifest)
    libraries = sorted(manifest.libraries.items())
    # Its size is not among them: this text is a part of it.
    points = {
        "Linear probe on the frozen base": probe,
        "Trivial baselines": describe_baselines(facts),
        "Method": f"{facts.method}; {manifest.parameters.adapter:,} numbers in the adapter and "
        f"{manifest.parameters.head:,} in the head, of {manifest.parameters.total:,} in all",
        "Owner": manifest.owner or "not named",
        "Trained with": ", ".join(f"{name} {version}" for name, version in libraries),
    }
    listed = "\n".join(f"- {name}: {text.rstrip('.')}." for name, text in points.items() if text)
    labels = f"\nClasses: {', '.join(manifest.labels)}.\n" if manifest.labels else ""
    return f"""---
base_model: {manifest.base.model}
library_name: {"peft" if is_readable_by_peft(config) else "lorry"}
tags: [lorry, {manifest.kind}, {manifest.method}]
---

# {manifest.task}

{facts.description or f"A {manifest.method} adapter for the task {manifest.task}."}
{labels}
Only the adapter is here. It belongs on the frozen base **{manifest.base.model}** \
({manifest.base.architecture}, fingerprint `{manifest.base.fingerprint}`).

| {manifest.evaluation.split} metric ({facts.examples} rows) | value | 95 % interval |
|---|---|---|
{metrics}

{listed}

## Use

While it is the champion of its task; `lorry history {manifest.task}` tells, and `--version` chooses another:

    lorry predict {manifest.task} "some text"

or from Python, through MLflow:

    mlflow.pyfunc.load_model("models:/{manifest.task}@champion").predict(["some text"])
{_render_peft_usage(peft_usage, list_client_notes(manifest, config))}"""


def _say_not_compared(manifest: Manifest) -> str:
    has_probe = issubclass(TASK_TYPES.get(manifest.kind, TaskType), SequenceHeadTaskType)
    if not has_probe or manifest.method == LINEAR_PROBE:
        return ""
    return "not compared"


def _render_peft_usage(code: str, notes: Sequence[str]) -> str:
    """Return the section about an adapter without Lorry: code that uses it, and what its reader must know."""
    if not code and not notes:
        return ""
    texts = "`texts` and `pairs` are lists" if "pairs" in code else "`texts` is a list"
    opening = f"`base` is the folder of the base, `folder` this one, and {texts}:"
    example = f"\n{opening}\n\n```python\n{code}```\n" if code else ""
    listed = "\n" + "".join(f"- {note}\n" for note in notes) if notes else ""
    return f"\n## Without Lorry\n{example}{listed}"
