"""Text generation: the base reads a prompt and goes on from its end."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lorry_components.task_types.base import IGNORED, Features
from lorry_components.task_types.generation.base import GenerationTaskType
from lorry_registry.errors import Fault

if TYPE_CHECKING:
    from transformers import PretrainedConfig


# Of these it was seen that no token looks into the sequence beside its own, where positions start anew. OPT
# counts positions itself, BLOOM looks back by distance, Mamba has a memory: there they would see each other.
PACKABLE = frozenset(
    {
        *("gpt2", "gptj", "gpt_neo", "gpt_neox", "phi", "phi3", "llama", "mistral", "gemma", "gemma2"),
        *("gemma3_text", "qwen2", "qwen3", "falcon", "olmo", "olmo2", "granite", "starcoder2", "stablelm"),
        *("cohere", "smollm3", "glm"),
    }
)


class TextGeneration(GenerationTaskType):
    """A text written by a causal language model, learned by cross-entropy on the answer's tokens alone."""

    name = "text-generation"
    summary = "a text that goes on from a prompt, by a causal language model"
    model_class = "AutoModelForCausalLM"
    peft_task_type = "CAUSAL_LM"
    predicts_next = True
    primary = "bleu"
    default_template = "{text}\n"
    default_pair_template = "{text}\n{text_pair}\n"

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that the base is a causal language model, and that prompts have room beside answers."""
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
            MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        )

        # BERT and its like have such a class too, for a use as a decoder that they were not trained for.
        is_decoder = getattr(config, "is_decoder", False)
        is_encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not is_decoder
        if config.is_encoder_decoder:
            yield Fault("base.model", f"{config.model_type} has an encoder", "write kind: text-to-text")
        elif config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or is_encoder:
            yield Fault(
                "base.model",
                f"{config.model_type} is no causal language model and writes no text",
                "choose one such as GPT-2, Llama, Gemma or Qwen",
            )
        if self.count_room() < 1:
            yield Fault(
                "data.max_target",
                f"answers of {self.form.max_target} tokens leave nothing of {self.form.max_length} for a "
                "prompt",
                "lower it, or raise data.max_length, which is of prompt and answer together",
            )

    def check_packing(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that the base keeps packed sequences apart."""
        if config.model_type not in PACKABLE or getattr(config, "alibi", False):
            yield Fault(
                "train.packing",
                f"a {config.model_type} would let packed sequences see each other, or is not known to keep "
                "them apart",
                "leave it out",
            )

    @property
    def continues(self) -> bool:
        """It does."""
        return True

    def count_room(self) -> int:
        """Return what an answer leaves of a sequence."""
        return self.form.max_length - self.form.max_target

    def join(self, prompt: list[int], answer: list[int]) -> Features:
        """Return one sequence."""
        return {"input_ids": [*prompt, *answer], "labels": [*[IGNORED] * len(prompt), *answer]}
