"""VeRA: all layers share one pair of random matrices, which learned vectors scale in each layer.

Kopiczko et al. 2024, https://arxiv.org/abs/2310.11454.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from lorry_components.methods.peft.targets import LayerOptions, TargetedMethod, check_layers, choose_layers
from lorry_registry.errors import Fault

if TYPE_CHECKING:
    from peft import VeraConfig
    from transformers import PreTrainedModel


class VeraOptions(LayerOptions):
    """VeRA's options.

    Attributes:
        r: The rank of the random matrices. It may be far above LoRA's: each rank costs one number a layer.
        dropout: Dropout before the matrices.
    """

    r: Annotated[int, Field(ge=1)] = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Vera(TargetedMethod):
    """Vectors that scale random matrices shared by all layers."""

    name = "vera"
    summary = "learned scales of random matrices that all layers share"
    learning_rate = 3e-2
    peft_type = "VERA"
    targets_table = "VERA"
    options_model = VeraOptions

    def build_config(self, model: "PreTrainedModel") -> "VeraConfig":
        """Return the configuration for the base.

        The random matrices are saved: another version of torch may draw others from the same seed.
        """
        from peft import VeraConfig

        options: VeraOptions = self.options
        return VeraConfig(
            task_type=self.peft_task_type,
            r=options.r,
            vera_dropout=options.dropout,
            target_modules=self.name_targets(model),
            fan_in_fan_out=self.has_transposed_targets(model),
            save_projection=True,
            **choose_layers(model, options.layers),
        )

    def check_model(self, model: "PreTrainedModel") -> Iterator[Fault]:
        """Check targets and layers."""
        yield from super().check_model(model)
        yield from check_layers(model, self.options.layers)
