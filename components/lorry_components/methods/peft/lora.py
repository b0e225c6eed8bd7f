"""LoRA: h = W0 x + (alpha / r) B A x (Hu et al. 2021, https://arxiv.org/abs/2106.09685), and its variants.

rsLoRA scales by alpha / sqrt(r) (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732), DoRA learns the
norm of each column apart (Liu et al. 2024, https://arxiv.org/abs/2402.09353), LoRA+ learns B faster than A
(Hayou et al. 2024, https://arxiv.org/abs/2402.12354). PiSSA (Meng et al. 2024, https://arxiv.org/abs/2404.02948)
and OLoRA (Büyükakyüz 2024, https://arxiv.org/abs/2406.01775) start from the base's own principal directions.
"""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from lorry_components.methods.base import MethodOptions
from lorry_components.methods.peft.base import ADAPTER
from lorry_components.methods.peft.targets import (
    LayerOptions,
    TargetedMethod,
    check_layers,
    check_rank,
    choose_layers,
)
from lorry_registry.errors import Fault, InvalidValueError

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel

_INITS: Mapping[str, Any] = {"kaiming": True}
# These subtract the initial update from the base's weights.
_BASE_CHANGING_INITS = ("pissa", "olora")


class LoraOptions(LayerOptions):
    """LoRA's options.

    Attributes:
        r: The rank of the update.
        alpha: Its scale is alpha / r. Adam's first steps move an update by about its scale times its rank, so
            that one alpha and one learning rate suit every rank (Hu et al. 2021, section 4.1).
        dropout: Dropout before A.
        rslora: Whether the scale is alpha / sqrt(r).
        dora: Whether the norm of each column of the weights is learned apart from its direction.
        init: How A and B start. With ``kaiming`` and ``gaussian``, distributions of A, B is zero.
        lora_plus_ratio: How many times faster B learns than A; None: equally fast.
    """

    r: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[int | float, Field(gt=0, allow_inf_nan=False)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rslora: bool = False
    dora: bool = False
    init: Literal["kaiming", "gaussian", "orthogonal", "pissa", "olora"] = "kaiming"
    lora_plus_ratio: Annotated[float, Field(ge=1, le=1000)] | None = None

    @model_validator(mode="after")
    def _check_init(self) -> Self:
        if self.dora and self.init in _BASE_CHANGING_INITS:
            raise InvalidValueError(
                f"init {self.init} changes the weights whose columns dora measures",
                "leave one of the two out",
            )
        if self.init == "orthogonal" and self.r % 2:
            raise ValueError(f"init orthogonal needs an even rank, and r is {self.r}")
        return self


class Lora(TargetedMethod):
    """A low-rank update beside chosen linear layers, which starts at zero."""

    name = "lora"
    summary = "low-rank updates beside chosen linear layers"
    learning_rate = 2e-3
    learns_matrices = True
    peft_type = "LORA"
    continues = True
    options_model = LoraOptions

    def __init__(
        self, options: MethodOptions | Mapping[str, Any] | None, peft_task_type: str | None = None
    ) -> None:
        super().__init__(options, peft_task_type)
        self._start: dict[str, torch.Tensor] = {}

    def build_config(self, model: "PreTrainedModel") -> "LoraConfig":
        """Return the configuration for the base."""
        from peft import LoraConfig

        options: LoraOptions = self.options
        return LoraConfig(
            task_type=self.peft_task_type,
            r=options.r,
            # PEFT declares a whole number, but divides any number.
            lora_alpha=options.alpha,  # type: ignore[arg-type]
            lora_dropout=options.dropout,
            target_modules=self.name_targets(model),
            use_rslora=options.rslora,
            use_dora=options.dora,
            init_lora_weights=_INITS.get(options.init, options.init),
            fan_in_fan_out=self.has_transposed_targets(model),
            **choose_layers(model, options.layers),
        )

    def check_model(self, model: "PreTrainedModel") -> Iterator[Fault]:
        """Check targets, rank and layers."""
        yield from super().check_model(model)
        options: LoraOptions = self.options
        yield from check_rank(self.list_targeted(model), options.r, "r")
        yield from check_layers(model, options.layers)
        if options.init == "olora" and self.has_transposed_targets(model):
            yield Fault(
                "method.init", "PEFT's olora reads GPT-2's weights the wrong way round", "choose pissa"
            )

    def check_continuing(self) -> Iterator[Fault]:
        """Check that the saved form is the trained one."""
        if self.options.init in _BASE_CHANGING_INITS:
            yield Fault(
                "train.start",
                f"with init {self.options.init} an adapter is saved in twice the rank that is trained",
                "choose another method.init, or leave it out",
            )

    def adapt(self, model: "PreTrainedModel", newly_initialized: frozenset[str]) -> "nn.Module":
        """Wrap the base; keep what an initialization subtracted from its weights."""
        adapted: Any = super().adapt(model, newly_initialized)
        if self.options.init in _BASE_CHANGING_INITS:
            tensors = super().collect_tensors(adapted)
            self._start = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        return adapted  # type: ignore[no-any-return]

    def describe_config(self, model: "PeftModel") -> dict[str, Any]:
        """Return PEFT's configuration; that of a converted update has twice the rank and the same scale."""
        document = super().describe_config(model)
        if self._start:
            growth = math.sqrt(2) if document["use_rslora"] else 2
            document |= {
                "r": 2 * document["r"],
                "lora_alpha": growth * document["lora_alpha"],
                "init_lora_weights": True,
            }
        return document

    def collect_tensors(self, model: "PeftModel") -> "dict[str, torch.Tensor]":
        """Return A and B, relative to the unchanged base.

        If training began with W - B0 A0 in place of W, the update of W is B A - B0 A0: a LoRA of twice the
        rank. Saved in this form, it leaves the base, which other adapters share, as it is.
        """
        import torch

        tensors = super().collect_tensors(model)
        if not self._start:
            return tensors
        for name, start in self._start.items():
            if ".lora_A." in name:
                tensors[name] = torch.cat([tensors[name], start.to(tensors[name])], dim=0)
            elif ".lora_B." in name:
                tensors[name] = torch.cat([tensors[name], -start.to(tensors[name])], dim=1)
        return tensors

    def list_shapes(self, model: "nn.Module") -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of A and B as they are saved."""
        shapes = super().list_shapes(model)
        for name in self._start:
            # The head, which is among them, is saved as it is.
            if ".lora_A." in name:
                rows, *rest = shapes[name]
                shapes[name] = (2 * rows, *rest)
            elif ".lora_B." in name:
                rows, columns, *rest = shapes[name]
                shapes[name] = (rows, 2 * columns, *rest)
        return shapes

    def scale_learning_rate(self, name: str) -> float:
        """Return LoRA+'s ratio for B."""
        ratio: float | None = self.options.lora_plus_ratio
        return ratio if ratio is not None and f".lora_B.{ADAPTER}." in name else 1.0
