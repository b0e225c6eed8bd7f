"""P-tuning: soft tokens that a small encoder computes (Liu et al. 2021, https://arxiv.org/abs/2103.10385).

They stand before the input, as in PEFT, or anywhere between its words, as in the paper: see ``template``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from lorry_components.data.templates import count_soft_tokens, parse_template
from lorry_components.methods.base import AdaptedModel, MethodOptions
from lorry_components.methods.soft_tokens.base import SoftTokenMethod, SoftTokenOptions, describe_size
from lorry_registry.adapters.verification import read_config
from lorry_registry.errors import AdapterRejectedError, InvalidValueError

if TYPE_CHECKING:
    from peft import PromptEncoderConfig
    from torch import nn
    from transformers import PreTrainedModel

_TYPE = "P_TUNING"
# PEFT would put the tokens before the input: under this name it refuses.
_PLACED_TYPE = "LORRY_P_TUNING"


def _check_soft_tokens(template: str) -> str:
    if not count_soft_tokens(parse_template(template)):
        raise InvalidValueError("has no soft token", "write [P], or [P]*3 for three, where they belong")
    return template


SoftTemplate = Annotated[str, Field(min_length=1, max_length=10_000), AfterValidator(_check_soft_tokens)]


class PTuningOptions(SoftTokenOptions):
    """P-tuning's options.

    Attributes:
        template: Where the soft tokens stand, such as ``[P]*3 {text} [P]*3 is in {label} .``; None: before
            the input, ``tokens`` of them.
        encoder: The module that computes the soft tokens.
        hidden_size: The encoder's width, for an LSTM that of each direction; None: the base's, and half of it
            for an LSTM, whose two directions together are then as wide as the base, as in the paper's code.
        layers: The LSTM's layers; an MLP always has two hidden ones.
        dropout: Dropout between an LSTM's layers.
    """

    template: SoftTemplate | None = None
    encoder: Literal["mlp", "lstm"] = "mlp"
    hidden_size: Annotated[int, Field(ge=1)] | None = None
    layers: Annotated[int, Field(ge=1, le=16)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        if self.template is not None and "tokens" in self.model_fields_set:
            raise ValueError("the number of tokens follows from 'template': leave 'tokens' out")
        return self

    @property
    def soft_template(self) -> str | None:
        """The template."""
        return self.template

    @property
    def count(self) -> int:
        """How many soft tokens there are."""
        return self.tokens if self.template is None else count_soft_tokens(parse_template(self.template))


class PTuning(SoftTokenMethod):
    """Soft tokens before or between the words, from an MLP or LSTM that is dropped after training."""

    name = "p-tuning"
    summary = "soft tokens before or between the words, from a small encoder"
    learning_rate = 5e-3
    learns_matrices = True
    peft_type = _TYPE
    options_model = PTuningOptions

    def __init__(
        self, options: MethodOptions | Mapping[str, Any] | None, peft_task_type: str | None = None
    ) -> None:
        super().__init__(options, peft_task_type)
        self._is_placed = self.options is not None and self.options.template is not None

    def count_added_tokens(self) -> int:
        """Return how many positions the soft tokens take beside the input; those of a template are in it."""
        return 0 if self._is_placed else self.options.count

    @property
    def can_be_left_out(self) -> bool:
        """Whether the tokens stand before the input: others have places in it."""
        return not self._is_placed

    def build_config(self, model: "PreTrainedModel") -> "PromptEncoderConfig":
        """Return the configuration of PEFT's prompt encoder, which is that of the paper's code.

        The stored one says the width, so that adapters of before, with an LSTM as wide in each direction as
        the base, are distinguished; what is saved are the tokens, which load without what computed them.
        """
        from peft import PromptEncoderConfig

        options: PTuningOptions = self.options
        size = describe_size(model)
        usual = size["token_dim"] if options.encoder == "mlp" else max(1, size["token_dim"] // 2)
        return PromptEncoderConfig(
            task_type=self.peft_task_type,
            num_virtual_tokens=options.count,
            encoder_reparameterization_type=options.encoder.upper(),
            encoder_hidden_size=options.hidden_size or usual,
            encoder_num_layers=options.layers,
            encoder_dropout=options.dropout,
            **size,
        )

    def insert(self, model: "PreTrainedModel", config: Any, encoder: "nn.Module") -> "nn.Module":
        """Put the soft tokens before the input, or where the task type left places for them."""
        if not self._is_placed:
            return super().insert(model, config, encoder)
        from lorry_components.methods.soft_tokens.insertion import place_soft_tokens

        soft = self.hold(model, config, encoder)
        place_soft_tokens(model, soft)
        return soft

    def describe_config(self, model: "nn.Module") -> dict[str, Any]:
        """Return PEFT's configuration, under a type that PEFT refuses if the tokens stand between words."""
        return super().describe_config(model) | {"peft_type": _PLACED_TYPE if self._is_placed else _TYPE}

    def restore(
        self, model: "PreTrainedModel", folder: Path, newly_initialized: frozenset[str]
    ) -> AdaptedModel:
        """Put the saved soft tokens back in their places."""
        self._is_placed = read_config(folder).get("peft_type") == _PLACED_TYPE
        return super().restore(model, folder, newly_initialized)

    def find_config_class(self, peft_type: object, path: str) -> Any:
        """Return the class of the configuration, wherever the tokens stand."""
        from peft import PromptEncoderConfig

        if peft_type not in (_TYPE, _PLACED_TYPE):
            raise AdapterRejectedError(
                f"peft_type is {peft_type!r}, and that of {self.name} is {_TYPE!r} or {_PLACED_TYPE!r}",
                where=path,
                todo="pull it again, or upgrade lorry",
            )
        return PromptEncoderConfig
