"""Prompt tuning: soft tokens before the input (Lester et al. 2021, https://arxiv.org/abs/2104.08691)."""

from typing import TYPE_CHECKING, Literal

from lorry_components.methods.soft_tokens.base import SoftTokenMethod, SoftTokenOptions, describe_size

if TYPE_CHECKING:
    from peft import PromptTuningConfig
    from transformers import PreTrainedModel


class PromptTuningOptions(SoftTokenOptions):
    """Prompt tuning's options.

    Attributes:
        init: Whether the tokens start as random words of the vocabulary or as random numbers.
    """

    init: Literal["vocabulary", "random"] = "vocabulary"


class PromptTuning(SoftTokenMethod):
    """Soft tokens before the input, whose vectors are trained directly."""

    name = "prompt-tuning"
    summary = "soft tokens before the input"
    learning_rate = 3e-2
    peft_type = "PROMPT_TUNING"
    options_model = PromptTuningOptions

    def build_config(self, model: "PreTrainedModel") -> "PromptTuningConfig":
        """Return the configuration for the base."""
        from peft import PromptTuningConfig

        options: PromptTuningOptions = self.options
        return PromptTuningConfig(
            task_type=self.peft_task_type,
            num_virtual_tokens=options.tokens,
            prompt_tuning_init="SAMPLE_VOCAB" if options.init == "vocabulary" else "RANDOM",
            **describe_size(model),
        )
