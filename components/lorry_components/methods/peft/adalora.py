"""AdaLoRA: the layers that need it most get the highest rank (Zhang et al. 2023, https://arxiv.org/abs/2303.10512)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from lorry_components.methods.peft.base import ADAPTER
from lorry_components.methods.peft.targets import (
    LayerOptions,
    TargetedMethod,
    check_layers,
    check_rank,
    choose_layers,
)
from lorry_registry.errors import Fault, InvalidValueError, TrainingError

if TYPE_CHECKING:
    import torch
    from peft import AdaLoraConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel

# The importance of each weight, as PEFT's rank allocator has measured it.
_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
_RANKS = "rank_pattern"


class AdaLoraOptions(LayerOptions):
    """AdaLoRA's options.

    Attributes:
        r: The rank that each layer starts with.
        target_r: The average rank at the end.
        alpha: The update's scale is alpha / r.
        dropout: Dropout before A.
        warmup: The share of the steps before ranks are reduced.
        final: The share of the steps after the last reduction.
        interval: Steps between two reductions.
        orthogonality: The weight of the penalty that keeps A and B orthogonal.
    """

    r: Annotated[int, Field(ge=1)] = 12
    target_r: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[int, Field(gt=0)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    final: Annotated[float, Field(ge=0, lt=1)] = 0.3
    interval: Annotated[int, Field(ge=1)] = 10
    orthogonality: Annotated[float, Field(ge=0)] = 0.5

    @model_validator(mode="after")
    def _check_plan(self) -> Self:
        if self.target_r >= self.r:
            raise InvalidValueError(f"'target_r' {self.target_r} is not below 'r' {self.r}", "or choose lora")
        if self.warmup + self.final >= 1:
            raise ValueError("'warmup' and 'final' leave no steps in which ranks are reduced")
        return self


class AdaLora(TargetedMethod):
    """A low-rank update as a singular value decomposition, whose least important values are masked."""

    name = "adalora"
    summary = "low-rank updates whose rank moves to the layers that need it"
    learning_rate = 2e-2
    learns_matrices = True
    peft_type = "ADALORA"
    targets_table = "ADALORA"
    options_model = AdaLoraOptions

    def build_config(self, model: "PreTrainedModel") -> "AdaLoraConfig":
        """Return the configuration for the base; the number of steps is set when training starts."""
        from peft import AdaLoraConfig

        options: AdaLoraOptions = self.options
        return AdaLoraConfig(
            task_type=self.peft_task_type,
            init_r=options.r,
            target_r=options.target_r,
            lora_alpha=options.alpha,
            lora_dropout=options.dropout,
            target_modules=self.name_targets(model),
            deltaT=options.interval,
            orth_reg_weight=options.orthogonality,
            total_step=1,
            fan_in_fan_out=self.has_transposed_targets(model),
            **choose_layers(model, options.layers),
        )

    def check_model(self, model: "PreTrainedModel") -> Iterator[Fault]:
        """Check targets, rank and layers."""
        yield from super().check_model(model)
        yield from check_rank(self.list_targeted(model), self.options.r, "r")
        yield from check_layers(model, self.options.layers)

    def start_training(self, model: "nn.Module", steps: int) -> None:
        """Set at which steps ranks are reduced."""
        config = _find_config(model)
        config.total_step = steps
        config.tinit = int(self.options.warmup * steps)
        config.tfinal = int(self.options.final * steps)
        # The importance is known from the second step on.
        if steps - config.tfinal < 2:
            raise TrainingError(
                f"{steps} steps are too few for adalora to measure which ranks to keep",
                where="train",
                todo="train longer, or choose lora",
            )

    def finish_step(self, model: "nn.Module", step: int) -> None:
        """Measure the singular values' importance by their gradients, and mask the least important."""
        tuner: Any = model.base_model
        tuner.update_and_allocate(step)

    def export_state(self, model: "nn.Module") -> "dict[str, torch.Tensor]":
        """Return the running averages of the importance, and the ranks so far."""
        import torch

        tuner: Any = model.base_model
        averages = {
            f"{field}/{name}": tensor.detach().cpu().clone()
            for field in _AVERAGES
            for name, tensor in getattr(tuner.rankallocator, field).items()
        }
        pattern = _find_config(model).rank_pattern or {}
        return averages | {f"{_RANKS}/{name}": torch.tensor(kept) for name, kept in pattern.items()}

    def import_state(self, model: "nn.Module", state: "Mapping[str, torch.Tensor]") -> None:
        """Restore the averages and ranks."""
        tuner: Any = model.base_model
        device = next(model.parameters()).device
        pattern: dict[str, list[bool]] = {}
        for key, tensor in state.items():
            field, _, name = key.partition("/")
            if field == _RANKS:
                pattern[name] = tensor.tolist()
            else:
                getattr(tuner.rankallocator, field)[name] = tensor.to(device)
        _find_config(model).rank_pattern = pattern or None

    def describe_config(self, model: "PeftModel") -> dict[str, Any]:
        """Return PEFT's configuration without the ranks: masked values are saved as zeros."""
        return super().describe_config(model) | {_RANKS: None}

    def collect_tensors(self, model: "PeftModel") -> "dict[str, torch.Tensor]":
        """Return all singular values, the masked ones as well.

        PEFT would leave those out and, after loading, add up in another order, which changes the last digits.
        """
        config = _find_config(model)
        pattern, config.rank_pattern = config.rank_pattern, None
        try:
            return super().collect_tensors(model)
        finally:
            config.rank_pattern = pattern

    def read_config(self, folder: Path) -> Any:
        """Read the configuration, but not as one for inference: PEFT's forward with labels would fail."""
        config = super().read_config(folder)
        config.inference_mode = False
        return config


def _find_config(model: Any) -> Any:
    return model.peft_config[ADAPTER]
