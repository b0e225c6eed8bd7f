"""The lines in an adapter's card that load it with plain PEFT and transformers."""

from pathlib import Path

from lorry_components.methods import METHODS
from lorry_components.methods.native.own_weights import OwnWeightsMethod
from lorry_components.methods.native.probe import Probe
from lorry_components.methods.peft.base import PeftMethod
from lorry_components.methods.soft_tokens.base import SoftTokenMethod
from lorry_components.models.model_family import is_decoder_class
from lorry_components.task_types import TASK_TYPES
from lorry_components.task_types.input_form import InputForm
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_registry.adapters.verification import read_tensor_entries
from lorry_registry.manifest import WEIGHTS_NAME, Manifest, Pooling

_PEFT = "base_model.model."
_HEAD = "score."

_POOLED = {
    "mean": "(states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)",
    "first": "states[range(len(states)), mask.argmax(1)]",
    "last": "states[range(len(states)), (mask * torch.arange(mask.shape[1])).argmax(1)]",
}


def write_peft_usage(manifest: Manifest, folder: Path) -> str:
    """Return Python that computes an adapter's logits with PEFT and transformers alone; empty: none would.

    ``base`` and ``folder`` are the paths of the base and of the adapter in it, and ``texts`` are the texts;
    a task on pairs reads ``pairs`` beside them.

    Args:
        manifest: The adapter.
        folder: Its files.
    """
    method = METHODS.get(manifest.method)
    task_type = TASK_TYPES.get(manifest.kind)
    if method is None or task_type is None or not issubclass(task_type, SequenceHeadTaskType):
        return ""
    is_wrapped = issubclass(method, PeftMethod) and not issubclass(method, SoftTokenMethod)
    has_own_weights = issubclass(method, OwnWeightsMethod)
    if manifest.head is None:
        return _write_usual(manifest) if is_wrapped else ""
    if not is_wrapped and not has_own_weights:
        return ""
    body = "body" if issubclass(method, Probe) else _find_body(folder)
    return "" if body is None else _write_pooled(manifest, manifest.head, body, is_wrapped=is_wrapped)


def _write_usual(manifest: Manifest) -> str:
    outputs = len(manifest.labels) if manifest.labels else 1
    return f"""import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

{write_tokenizer(manifest)}
model = AutoModelForSequenceClassification.from_pretrained(
    base, num_labels={outputs}, dtype=torch.float32
)
model.config.pad_token_id = tokenizer.pad_token_id
model = PeftModel.from_pretrained(model, folder).eval()
{write_inputs(manifest)}
with torch.no_grad():
    logits = model(**inputs).logits
"""


def _write_pooled(manifest: Manifest, pooling: Pooling, body: str, *, is_wrapped: bool) -> str:
    outputs = len(manifest.labels) if manifest.labels else 1
    pooled = "\n        ".join(write_pooling(pooling))
    imports = "from peft import PeftModel" if is_wrapped else "from safetensors.torch import load_file"
    load = (
        "model = PeftModel.from_pretrained(Model(), folder).eval().get_base_model()"
        if is_wrapped
        else f'model = Model().eval()\nmodel.load_state_dict(load_file(f"{{folder}}/{WEIGHTS_NAME}"), False)'
    )
    return f"""import torch
{imports}
from transformers import AutoModel, AutoTokenizer


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.{body} = AutoModel.from_pretrained(base, dtype=torch.float32)
        self.score = torch.nn.Linear({read_head_width(manifest, outputs)}, {outputs})

    def forward(self, **inputs):
        states, mask = self.{body}(**inputs).last_hidden_state, inputs["attention_mask"]
        {pooled}
        return self.score(pooled)


{write_tokenizer(manifest)}
{load}
{write_inputs(manifest)}
with torch.no_grad():
    logits = model(**inputs)
"""


def write_pooling(pooling: Pooling) -> list[str]:
    """Return the lines that make one vector a text, ``pooled``, of ``states`` and ``mask``."""
    lines = [f"pooled = {_POOLED[pooling.place]}"]
    if pooling.normalizes:
        # As long as a vector of ones.
        lines.append("pooled = torch.nn.functional.normalize(pooled) * pooled.shape[1] ** 0.5")
    return lines


def write_tokenizer(manifest: Manifest, source: str = "base") -> str:
    """Return the lines that load the tokenizer of the base.

    Args:
        manifest: The adapter.
        source: The variable that holds the folder.
    """
    # Many decoders have no token for padding, and Lorry pads with the one that ends texts.
    padding = "\ntokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token"
    is_decoder = is_decoder_class(manifest.base.architecture)
    return f"tokenizer = AutoTokenizer.from_pretrained({source}){padding if is_decoder else ''}"


def write_inputs(manifest: Manifest) -> str:
    """Return the line that makes texts a model's inputs, cut as the task cuts them."""
    form = InputForm.read(manifest.recipe)
    texts = "texts, pairs" if form.has_pair else "texts"
    cut = f"truncation=True, max_length={form.max_length}"
    return f'inputs = tokenizer({texts}, {cut}, padding=True, return_tensors="pt")'


def read_head_width(manifest: Manifest, outputs: int) -> int:
    """Return the width of what the head reads: all that it has but one bias an output are weights."""
    return manifest.parameters.head // outputs - 1


def _find_body(folder: Path) -> str | None:
    """Return the name under which an adapter's tensors know the base's body."""
    names = (name.removeprefix(_PEFT) for name in read_tensor_entries(folder / WEIGHTS_NAME))
    return next((name.partition(".")[0] for name in names if not name.startswith(_HEAD)), None)
