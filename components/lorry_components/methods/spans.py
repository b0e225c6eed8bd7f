"""PEFT's model for question answering, so that it reads the token types and points at the right tokens."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

SPAN_HEAD = "qa_outputs"
"""The name of the head in nearly all families."""


def wrap_for_spans(model: "PreTrainedModel", config: "PeftConfig", adapter: str) -> "PeftModel":
    """Wrap a base whose head points at tokens.

    PEFT 0.21's own forward leaves the token types out, by which BERT tells the question from the context; and
    with soft tokens it takes positions as if there were none, and returns scores of theirs as well. Here
    those are cut off before the loss: what goes in and what comes out is about the input alone.

    Args:
        model: The base with its head.
        config: The method's configuration.
        adapter: PEFT's name for the adapter.

    Raises:
        ValueError: PEFT cannot put the method on this base.
    """
    import torch
    from peft import PeftModelForQuestionAnswering
    from torch import nn

    class SpanModel(PeftModelForQuestionAnswering):
        """A base with an adapter, or with soft tokens before its input."""

        # What else there is, is given by name.
        def forward(  # type: ignore[override]
            self,
            input_ids: "torch.Tensor",
            attention_mask: "torch.Tensor | None" = None,
            **inputs: Any,
        ) -> Any:
            """Return the base's outputs, shape (rows, tokens) for starts and for ends."""
            active = self.active_peft_config
            if not active.is_prompt_learning:
                with self._enable_peft_forward_hooks(**inputs):
                    return self.base_model(input_ids=input_ids, attention_mask=attention_mask, **inputs)
            rows, soft = input_ids.shape[0], active.num_virtual_tokens
            embed: Any = self.word_embeddings
            words = embed(input_ids)
            # Computed once: they are the same for all rows.
            prompts = self.get_prompt(batch_size=1).to(words.dtype).expand(rows, -1, -1)
            inputs["inputs_embeds"] = torch.cat([prompts, words], dim=1)
            if attention_mask is not None:
                inputs["attention_mask"] = torch.cat(
                    [attention_mask.new_ones(rows, soft), attention_mask], dim=1
                )
            types = inputs.get("token_type_ids")
            if types is not None:
                inputs["token_type_ids"] = torch.cat([types.new_zeros(rows, soft), types], dim=1)
            targets = [inputs.pop(name, None) for name in ("start_positions", "end_positions")]
            outputs = self.base_model(**inputs)
            outputs.start_logits = outputs.start_logits[:, soft:]
            outputs.end_logits = outputs.end_logits[:, soft:]
            if None not in targets:
                scored = zip((outputs.start_logits, outputs.end_logits), targets, strict=True)
                losses = [nn.functional.cross_entropy(scores, target) for scores, target in scored]
                outputs.loss = torch.stack(losses).mean()
            return outputs

    if hasattr(config, "modules_to_save"):
        # Before PEFT chooses layers, as for other heads: 'all-linear' would take in a trained one.
        config.modules_to_save = sorted({*(config.modules_to_save or ()), SPAN_HEAD})
    return SpanModel(model, config, adapter_name=adapter)
