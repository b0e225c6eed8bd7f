"""Text generation: the base reads a prompt and goes on from its end."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lorry_components.models.model_family import is_causal, is_encoder_decoder
from lorry_components.task_types.adapting_method import AdaptingMethod
from lorry_components.task_types.base import IGNORED, Features
from lorry_components.task_types.generation.base import GenerationTaskType
from lorry_components.task_types.text_task import PassLengths
from lorry_components.task_types.training_form import TrainingForm
from lorry_registry.errors import Fault
from lorry_registry.tasks.task_spec import TrainSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig


# These were tested: where positions start anew, no token looks into the sequence beside its own. OPT counts
# positions itself, BLOOM looks back by distance, Mamba has a memory: there they would see each other.
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
    training_form = TrainingForm(loss="next_token_mean")
    primary = "bleu"
    default_template = "{text}\n"
    default_pair_template = "{text}\n{text_pair}\n"

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that the base is a causal language model, and that prompts have room beside answers."""
        if is_encoder_decoder(config):
            yield Fault("base.model", f"{config.model_type} has an encoder", "write kind: text-to-text")
        elif not is_causal(config):
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

    def check_training(self, train: TrainSpec, method: AdaptingMethod) -> Iterator[Fault]:
        """Check that the method's own tokens, if it has any, do not stand before packed sequences."""
        if train.packing and method.count_added_tokens():
            yield Fault(
                "train.packing",
                f"{method.name} puts its tokens before the first sequence only",
                "leave it out",
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

    def describe_pass(self, config: "PretrainedConfig", tokens: int) -> PassLengths:
        """Return the answer as what is supervised: of the prompt no output is computed."""
        return PassLengths(supervised=min(self.form.max_target, tokens))

    @property
    def continues(self) -> bool:
        """Return True: prompt and answer are one sequence."""
        return True

    def count_room(self) -> int:
        """Return what an answer leaves of a sequence."""
        return self.form.max_length - self.form.max_target

    def join(self, prompt: list[int], answer: list[int]) -> Features:
        """Return one sequence."""
        return {"input_ids": [*prompt, *answer], "labels": [*[IGNORED] * len(prompt), *answer]}
