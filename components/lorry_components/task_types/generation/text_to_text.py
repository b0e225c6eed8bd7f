"""Text to text: the base reads an input with its encoder and writes an answer with its decoder."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lorry_components.models.dimensions import count_decoder_positions
from lorry_components.models.model_family import is_sequence_to_sequence
from lorry_components.task_types.base import Features
from lorry_components.task_types.generation.base import GenerationTaskType
from lorry_components.task_types.text_task import PassLengths
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
        if not is_sequence_to_sequence(config):
            yield Fault(
                "base.model",
                f"{config.model_type} is no sequence-to-sequence model",
                "choose one such as T5, MT5 or BART, or write kind: text-generation for a causal one",
            )
            return
        positions = count_decoder_positions(config)
        if positions is not None and self.form.max_target > positions:
            yield Fault(
                "data.max_target",
                f"{self.form.max_target} tokens of an answer are more than the {positions} positions of the "
                "base's decoder",
                f"write max_target: {positions} or less",
            )

    def describe_pass(self, config: "PretrainedConfig", tokens: int) -> PassLengths:
        """Return the answer as what the decoder reads and writes."""
        return PassLengths(decoder=self.form.max_target)

    @property
    def continues(self) -> bool:
        """Return False: the answer is a sequence of its own, which the decoder begins."""
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
