"""PEFT's model for question answering, with token types."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

SPAN_HEAD = "qa_outputs"
"""The name of the head in nearly all model families."""


def wrap_for_spans(model: "PreTrainedModel", config: "PeftConfig", adapter: str) -> "PeftModel":
    """Wrap a base whose head marks the first and last token of an answer.

    PEFT 0.21's own forward drops the token types, by which BERT distinguishes the question from the context.

    Args:
        model: The base with its head.
        config: The method's configuration.
        adapter: PEFT's name for the adapter.

    Raises:
        ValueError: PEFT cannot put the method on this base.
    """
    from peft import PeftModelForQuestionAnswering

    class SpanModel(PeftModelForQuestionAnswering):
        """A base with an adapter."""

        # All other inputs are given by name.
        def forward(  # type: ignore[override]
            self,
            input_ids: "torch.Tensor",
            attention_mask: "torch.Tensor | None" = None,
            **inputs: Any,
        ) -> Any:
            """Return the base's outputs, shape (rows, tokens) for starts and for ends."""
            with self._enable_peft_forward_hooks(**inputs):
                return self.base_model(input_ids=input_ids, attention_mask=attention_mask, **inputs)

    if hasattr(config, "modules_to_save"):
        # Before PEFT chooses layers, as for other heads: 'all-linear' would include a trained head.
        config.modules_to_save = sorted({*(config.modules_to_save or ()), SPAN_HEAD})
    return SpanModel(model, config, adapter_name=adapter)
