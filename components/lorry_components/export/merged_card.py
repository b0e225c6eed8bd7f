"""The README of a merged model: what it is, and the lines that load it with transformers alone."""

from lorry_components.steps.register.peft_usage import (
    read_head_width,
    write_inputs,
    write_pooling,
    write_tokenizer,
)
from lorry_components.task_types import TASK_TYPES
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_registry.manifest import Manifest, Pooling

HEAD_FILE = "head.safetensors"
"""A linear head over pooled states, beside the body that reads them: ``weight`` and ``bias``."""


def render_merged_card(manifest: Manifest) -> str:
    """Return the README in Markdown. It holds no time."""
    base, evaluation, headline = manifest.base, manifest.evaluation, manifest.evaluation.headline
    labels = (
        f"\nClasses, in the order of the outputs: {', '.join(manifest.labels)}.\n" if manifest.labels else ""
    )
    code = write_merged_use(manifest)
    use = f"\n## Use\n\n```python\n{code}```\n" if code else ""
    return f"""---
base_model: {base.model}
base_model_relation: merge
library_name: transformers
tags: [lorry, {manifest.kind}, {manifest.method}]
---

# {manifest.task}

The base **{base.model}** (fingerprint `{base.fingerprint}`) with the adapter `{manifest.adapter_id}` \
merged into its weights. On {evaluation.examples} {evaluation.split} rows its {evaluation.primary} is \
{headline.value:.3f}, 95 % interval {headline.low:.3f} to {headline.high:.3f}.
{labels}{use}"""


def write_merged_use(manifest: Manifest) -> str:
    """Return Python that computes a merged model's logits with transformers alone; empty: it has none.

    ``folder`` is the model's, and ``texts`` are the texts; a task on pairs reads ``pairs`` beside them.
    """
    task_type = TASK_TYPES.get(manifest.kind)
    if task_type is None or not issubclass(task_type, SequenceHeadTaskType):
        return ""
    return _write_usual(manifest) if manifest.head is None else _write_pooled(manifest, manifest.head)


def _write_usual(manifest: Manifest) -> str:
    return f"""import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

{write_tokenizer(manifest, "folder")}
model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
model.config.pad_token_id = tokenizer.pad_token_id
{write_inputs(manifest)}
with torch.no_grad():
    logits = model(**inputs).logits
"""


def _write_pooled(manifest: Manifest, pooling: Pooling) -> str:
    outputs = len(manifest.labels) if manifest.labels else 1
    pooled = "\n    ".join(write_pooling(pooling))
    return f"""import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

{write_tokenizer(manifest, "folder")}
body = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
head = torch.nn.Linear({read_head_width(manifest, outputs)}, {outputs})
head.load_state_dict(load_file(f"{{folder}}/{HEAD_FILE}"))
{write_inputs(manifest)}
with torch.no_grad():
    states, mask = body(**inputs).last_hidden_state, inputs["attention_mask"]
    {pooled}
    logits = head(pooled)
"""
