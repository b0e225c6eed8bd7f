"""A base under a head of Lorry's own: a linear layer over a pooled vector of its last states.

transformers' heads read the first or the last token, some of them through further layers that are random
before training. This one reads what it is configured to, and is otherwise a model of the base's family: its
body has the name that transformers gives it, so that adapters fit both.

This module imports torch. Import it only where there is a model.
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import SequenceClassifierOutput

from lorry_components.models.dimensions import read_hidden_size
from lorry_registry.manifest import Pooling

HEAD = "score"
"""The name of the output layer, which is transformers' for heads that are one layer."""


class PooledLoader:
    """Loads or builds a base under such a head, as transformers' automatic classes do with theirs.

    Args:
        pooling: What the head reads.
        dropout: Dropout before the output layer.
    """

    _model_mapping = AutoModel._model_mapping

    def __init__(self, pooling: Pooling, dropout: float = 0.0) -> None:
        self._pooling = pooling
        self._dropout = dropout

    def from_pretrained(self, folder: Path, **options: Any) -> Any:
        """Load a base; ``options`` are those of transformers' own."""
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        return self._choose_class(config).from_pretrained(folder, **options)

    def from_config(self, config: PretrainedConfig, *, attn_implementation: str | None = None) -> Any:
        """Build a base without its weights."""
        chosen: Any = self._choose_class(config)
        given = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
        return chosen._from_config(config, **given)

    def _choose_class(self, config: PretrainedConfig) -> type[PreTrainedModel]:
        body = find_body_class(config)
        family = next(parent for parent in body.__mro__[1:] if issubclass(parent, PreTrainedModel))
        pooling, dropout = self._pooling, self._dropout

        class Pooled(_PooledModel, family):  # type: ignore[misc, valid-type, no-untyped-call]
            body_class = body
            reads = pooling
            head_dropout = dropout

        # The name tells transformers which loss is meant.
        Pooled.__name__ = f"Pooled{body.__name__}ForSequenceClassification"
        return Pooled


class _PooledModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """The model itself; a subclass has the family's class behind it."""

    body_class: type[PreTrainedModel]
    reads: Pooling
    head_dropout: float

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        outputs: Any = config.num_labels
        self.num_labels = outputs
        setattr(self, self.base_model_prefix, build_body(self.body_class, config))
        self.dropout = nn.Dropout(self.head_dropout)
        setattr(self, HEAD, nn.Linear(read_output_width(config), outputs))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """Return logits, and the loss where there are labels."""
        outputs = self.base_model(
            input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **inputs
        )
        pooled = pool_states(outputs.last_hidden_state, attention_mask, self.reads)
        head: nn.Module = getattr(self, HEAD)
        logits = head(self.dropout(pooled))
        loss = None if labels is None else ForSequenceClassificationLoss(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def pool_states(states: torch.Tensor, mask: torch.Tensor | None, pooling: Pooling) -> torch.Tensor:
    """Return one vector a text, in fp32.

    A normalised one has the length of a vector whose numbers are all 1, and not 1 itself: a head that is
    trained on it begins with outputs of the usual size, and learns at the usual rate.

    Args:
        states: A base's last hidden states, shape (texts, tokens, width).
        mask: 1 where there is a token and 0 where there is padding, shape (texts, tokens); None: no padding.
        pooling: What is read of the states.
    """
    states = states.float()
    if mask is None:
        mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
    if pooling.place == "mean":
        shares = mask.to(states.dtype).unsqueeze(-1)
        pooled = (states * shares).sum(dim=1) / shares.sum(dim=1).clamp(min=1.0)
    else:
        # Padding may be on either side.
        number = torch.arange(mask.shape[1], device=mask.device)
        is_first = pooling.place == "first"
        chosen = mask.argmax(dim=1) if is_first else (mask * number).argmax(dim=1)
        pooled = states[torch.arange(len(states), device=states.device), chosen]
    if pooling.normalizes:
        pooled = functional.normalize(pooled, dim=1) * pooled.shape[1] ** 0.5
    return pooled


def is_pooled(model: nn.Module) -> bool:
    """Return whether a base's head is Lorry's own."""
    return isinstance(model, _PooledModel)


def build_body(body_class: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """Build a base without a head, and without the pooler that some families put on it."""
    known = inspect.signature(body_class.__init__).parameters
    further: dict[str, Any] = {"add_pooling_layer": False} if "add_pooling_layer" in known else {}
    return body_class(config, **further)


def find_body_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """Return transformers' class for a base without a head.

    Raises:
        ValueError: It has none.
    """
    try:
        found: Any = PooledLoader._model_mapping[type(config)]
    except KeyError as error:
        raise ValueError(f"transformers has no AutoModel for a {config.model_type}") from error
    chosen: type[PreTrainedModel] = found[0] if isinstance(found, tuple | list) else found
    return chosen


def read_output_width(config: PretrainedConfig) -> int:
    """Return the width of a base's last states: OPT may project them to that of its embeddings.

    Raises:
        BaseModelError: The architecture has several widths, or none of its own.
    """
    projected = getattr(config, "word_embed_proj_dim", None)
    return projected if isinstance(projected, int) else read_hidden_size(config)
