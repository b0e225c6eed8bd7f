"""P-tuning: soft tokens that a small encoder computes (Liu et al. 2021, https://arxiv.org/abs/2103.10385)."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lorry_components.methods.layers import read_hidden_size
from lorry_components.methods.soft_tokens import SoftTokenMethod, SoftTokenOptions, describe_size

if TYPE_CHECKING:
    from peft import PromptEncoderConfig
    from transformers import PreTrainedModel


class PTuningOptions(SoftTokenOptions):
    """P-tuning's options.

    Attributes:
        encoder: What computes the soft tokens.
        hidden_size: The encoder's width; None: the base's.
        layers: The LSTM's layers; an MLP always has two hidden ones.
        dropout: Dropout between an LSTM's layers.
    """

    encoder: Literal["mlp", "lstm"] = "mlp"
    hidden_size: Annotated[int, Field(ge=1)] | None = None
    layers: Annotated[int, Field(ge=1, le=16)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class PTuning(SoftTokenMethod):
    """Soft tokens before the input, computed by an MLP or LSTM that is not needed after training."""

    name = "p-tuning"
    summary = "soft tokens before the input, from a small encoder"
    learning_rate = 5e-3
    peft_type = "P_TUNING"
    options_model = PTuningOptions

    def build_config(self, model: "PreTrainedModel") -> "PromptEncoderConfig":
        """Return the configuration of PEFT's prompt encoder."""
        from peft import PromptEncoderConfig

        options: PTuningOptions = self.options
        return PromptEncoderConfig(
            task_type=self.task_type,
            num_virtual_tokens=options.tokens,
            encoder_reparameterization_type=options.encoder.upper(),
            encoder_hidden_size=options.hidden_size or read_hidden_size(model.config),
            encoder_num_layers=options.layers,
            encoder_dropout=options.dropout,
            **describe_size(model.config),
        )
