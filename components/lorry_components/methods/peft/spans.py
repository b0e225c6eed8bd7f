"""PEFT's model for question answering, so that it reads the token types."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

SPAN_HEAD = "qa_outputs"
"""The name of the head in nearly all families."""


def wrap_for_spans(model: "PreTrainedModel", config: "PeftConfig", adapter: str) -> "PeftModel":
    """Wrap a base whose head points at tokens.

    PEFT 0.21's own forward leaves the token types out, by which BERT tells the question from the context.

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

        # What else there is, is given by name.
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
        # Before PEFT chooses layers, as for other heads: 'all-linear' would take in a trained one.
        config.modules_to_save = sorted({*(config.modules_to_save or ()), SPAN_HEAD})
    return SpanModel(model, config, adapter_name=adapter)
