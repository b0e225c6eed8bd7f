"""LoRA: h = W0 x + (alpha / r) B A x (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lorry_components.methods.base import MethodOptions
from lorry_components.methods.peft_method import PeftMethod
from lorry_registry.errors import TrainingError
from lorry_registry.task_document import suggest_name

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import nn
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
    peft_type = "LORA"
    options_model = LoraOptions

    def build_config(self, model: "PreTrainedModel") -> "LoraConfig":
        """Return the configuration, having checked that every target and rank fits the base."""
        from peft import LoraConfig
        from transformers.pytorch_utils import Conv1D

        options: LoraOptions = self.options
        linear = _list_linear(model)
        _check_targets(type(model).__name__, linear, options)
        return LoraConfig(
            task_type=self.task_type,
            r=options.r,
            lora_alpha=options.alpha if options.alpha is not None else 2 * options.r,
            lora_dropout=options.dropout,
            target_modules=options.targets,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in linear.values()),
        )


def _list_linear(model: "PreTrainedModel") -> "dict[str, nn.Module]":
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    # Conv1D is GPT-2's linear layer, whose matrix is stored the other way round.
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}


def _check_targets(model: str, linear: "dict[str, nn.Module]", options: LoraOptions) -> None:
    for target in options.targets or ():
        hits = [module for name, module in linear.items() if name == target or name.endswith(f".{target}")]
        if not hits:
            names = {name.rpartition(".")[2] for name in linear}
            raise TrainingError(
                f"no linear layer of {model} is called {target!r}",
                where="method.targets",
                todo=suggest_name(target, names),
            )
        limit = min(size for module in hits for size in module.get_parameter("weight").shape)
        if options.r > limit:
            raise TrainingError(
                f"rank {options.r} is above the rank that {target!r} can have, {limit}",
                where="method.r",
                todo=f"choose a rank of at most {limit}",
            )
