"""Text to text: the base reads an input with its encoder and writes an answer with its decoder."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lorry_components.task_types.base import Features
from lorry_components.task_types.generation.base import GenerationTaskType
from lorry_registry.errors import Fault

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class TextToText(GenerationTaskType):
    """A text written by a sequence-to-sequence model, learned by cross-entropy on its tokens."""

    name = "text-to-text"
    summary = "a text for a text, by a model with an encoder and a decoder"
    model_class = "AutoModelForSeq2SeqLM"
    peft_task_type = "SEQ_2_SEQ_LM"
    primary = "exact_match"
    default_template = "{text}"
    default_pair_template = "{text}\n{text_pair}"

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that the base has an encoder and a decoder, and positions for an answer."""
        from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

        if config.model_type not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
            yield Fault(
                "base.model",
                f"{config.model_type} is no sequence-to-sequence model",
                "choose one such as T5, MT5 or BART, or write kind: text-generation for a causal one",
            )
            return
        positions = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
        if positions is not None and self.form.max_target > positions:
            yield Fault(
                "data.max_target",
                f"{self.form.max_target} tokens of an answer are more than the {positions} positions of the "
                "base's decoder",
                f"write max_target: {positions} or less",
            )

    @property
    def continues(self) -> bool:
        """It does not: the decoder starts anew."""
        return False

    def count_room(self) -> int:
        """Return what an input may have."""
        return self.form.max_length

    def join(self, prompt: list[int], answer: list[int]) -> Features:
        """Return the encoder's input, and the answer as labels, of which the model makes the decoder's."""
        return {"input_ids": prompt, "labels": answer}

    def list_probe_inputs(self, model: Any) -> dict[str, Any]:
        """Return the token with which the decoder starts."""
        import torch

        start = torch.tensor([[model.config.decoder_start_token_id]], device=next(model.parameters()).device)
        return {"decoder_input_ids": start}
