"""P-tuning: soft tokens that a small encoder computes (Liu et al. 2021, https://arxiv.org/abs/2103.10385)."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from lorry_components.methods.base import MethodOptions
from lorry_components.methods.peft_method import PeftMethod
from lorry_registry.errors import TrainingError

if TYPE_CHECKING:
    from peft import PromptEncoderConfig
    from transformers import PreTrainedModel


class PTuningOptions(MethodOptions):
    """P-tuning's options.

    Attributes:
        tokens: Soft tokens put before the input.
        encoder: What computes them.
        hidden_size: The encoder's width; None: the base's.
        layers: The LSTM's layers; an MLP always has two hidden ones.
        dropout: Dropout between an LSTM's layers.
    """

    tokens: Annotated[int, Field(ge=1, le=4096)] = 20
    encoder: Literal["mlp", "lstm"] = "mlp"
    hidden_size: Annotated[int, Field(ge=1)] | None = None
    layers: Annotated[int, Field(ge=1, le=16)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class PTuning(PeftMethod):
    """Soft tokens before the input, computed by an MLP or LSTM that is not needed after training."""

    name = "p-tuning"
    summary = "soft tokens before the input, from a small encoder"
    learning_rate = 5e-3
    peft_type = "P_TUNING"
    options_model = PTuningOptions

    def count_soft_tokens(self) -> int:
        """Return the number of soft tokens."""
        return int(self.options.tokens)

    def build_config(self, model: "PreTrainedModel") -> "PromptEncoderConfig":
        """Return the configuration of PEFT's prompt encoder."""
        from peft import PromptEncoderConfig

        options: PTuningOptions = self.options
        if _reads_last_token(model):
            raise TrainingError(
                f"p-tuning does not fit {type(model).__name__}: its head reads the last token, which "
                "cannot be told from padding once soft tokens stand before it",
                where="method.name",
                todo="choose lora or full, or an encoder as the base",
            )
        return PromptEncoderConfig(
            task_type=self.task_type,
            num_virtual_tokens=options.tokens,
            # PEFT knows only some of the names that families of models have for these.
            token_dim=model.config.hidden_size,
            num_layers=model.config.num_hidden_layers,
            num_attention_heads=model.config.num_attention_heads,
            encoder_reparameterization_type=options.encoder.upper(),
            encoder_hidden_size=options.hidden_size or model.config.hidden_size,
            encoder_num_layers=options.layers,
            encoder_dropout=options.dropout,
        )


def _reads_last_token(model: "PreTrainedModel") -> bool:
    # transformers calls the head of its decoders so, and no other.
    return hasattr(model, "score")
