"""LoRA: h = W0 x + (alpha / r) B A x (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lorry_components.methods.base import MethodOptions
from lorry_components.methods.peft_method import PeftMethod
from lorry_registry.errors import TrainingError
from lorry_registry.task_document import suggest_name

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel


class LoraOptions(MethodOptions):
    """LoRA's options.

    Attributes:
        r: The rank of the update.
        alpha: Its scale is alpha / r; None: twice the rank.
        dropout: Dropout before A.
        targets: Names of the modules that are adapted; None: PEFT's choice for the base's architecture.
    """

    r: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[int, Field(gt=0)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[list[str], Field(min_length=1)] | None = None


class Lora(PeftMethod):
    """A low-rank update beside chosen linear layers; B starts at zero, A Gaussian."""

    name = "lora"
    summary = "low-rank updates beside chosen linear layers"
    learning_rate = 2e-3
    options_model = LoraOptions

    def build_config(self, model: "PreTrainedModel") -> "LoraConfig":
        """Return the configuration, having checked that every target and rank fits the base."""
        from peft import LoraConfig

        options: LoraOptions = self.options
        _check_targets(model, options)
        return LoraConfig(
            task_type=self.task_type,
            r=options.r,
            lora_alpha=options.alpha if options.alpha is not None else 2 * options.r,
            lora_dropout=options.dropout,
            target_modules=options.targets,
        )


def _check_targets(model: "PreTrainedModel", options: LoraOptions) -> None:
    from torch import nn

    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for target in options.targets or ():
        hits = [module for name, module in linear.items() if name == target or name.endswith(f".{target}")]
        if not hits:
            names = {name.rpartition(".")[2] for name in linear}
            raise TrainingError(
                f"no linear layer of {type(model).__name__} is called {target!r}",
                where="method.targets",
                todo=suggest_name(target, names),
            )
        limit = min(min(module.in_features, module.out_features) for module in hits)
        if options.r > limit:
            raise TrainingError(
                f"rank {options.r} is above the rank that {target!r} can have, {limit}",
                where="method.r",
                todo=f"choose a rank of at most {limit}",
            )
