"""IA3: keys, values and the MLP are rescaled by learned vectors (Liu et al. 2022, https://arxiv.org/abs/2205.05638)."""

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from lorry_components.methods.peft.targets import TargetedMethod, TargetOptions

if TYPE_CHECKING:
    from peft import IA3Config
    from transformers import PreTrainedModel


class Ia3Options(TargetOptions):
    """IA3's options.

    Attributes:
        feedforward: The targets whose input is rescaled instead of their output; None: PEFT's choice.
    """

    feedforward: Annotated[list[str], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _check_both(self) -> Self:
        if (self.targets is None) != (self.feedforward is None):
            raise ValueError("give 'targets' and 'feedforward', or neither")
        if self.targets == "all-linear":
            raise ValueError("ia3 rescales keys, values and the MLP: name them in 'targets'")
        if stray := sorted(set(self.feedforward or ()) - set(self.targets or ())):
            raise ValueError(f"'feedforward' names {stray[0]!r}, which is not among the targets")
        return self


class Ia3(TargetedMethod):
    """One factor for each output of chosen linear layers, which starts at 1."""

    name = "ia3"
    summary = "learned rescaling of keys, values and the MLP"
    learning_rate = 1e-2
    peft_type = "IA3"
    targets_table = "IA3"
    continues = True
    options_model = Ia3Options

    def build_config(self, model: "PreTrainedModel") -> "IA3Config":
        """Return the configuration for the base."""
        from peft import IA3Config

        options: Ia3Options = self.options
        return IA3Config(
            task_type=self.peft_task_type,
            target_modules=options.targets,
            feedforward_modules=options.feedforward,
            fan_in_fan_out=self.has_transposed_targets(model),
        )
