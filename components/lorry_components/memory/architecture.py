"""A model on torch's meta device: tensors have shapes and no numbers, so that 12 billion take no memory."""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorry_components.methods import Method
from lorry_components.methods.peft.qlora import KEPT_MODULES
from lorry_components.models.blocks import find_layers
from lorry_components.models.configuration import BaseConfiguration
from lorry_components.training.setup.optimizers import count_wide_moments
from lorry_registry.errors import BaseModelError, TrainingError
from lorry_registry.manifest import ParameterCounts

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

# A weights file ends its header on a multiple of eight bytes, after eight that hold its length.
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class Architecture:
    """A base with a head, without weights.

    Attributes:
        model: On the meta device.
        newly_initialized: Names of the parameters that the base's weights do not hold.
    """

    model: "PreTrainedModel"
    newly_initialized: frozenset[str]


@dataclass(frozen=True, slots=True)
class AdaptedArchitecture:
    """A base with a head and an adapter, without weights.

    Attributes:
        model: On the meta device.
        parameters: How many are trained, and how many there are.
        adapter_bytes: Size of the weights file that is saved; for ``full``, if every tensor changes.
        frozen_matrices: Frozen parameters in linear layers that can be held in four bits: not those of output
            layer and head.
        wide_moments: Trained parameters whose moments an optimiser of eight bits keeps in 32.
        outside_blocks: Frozen parameters outside of the blocks; all of them if the blocks are not known.
        largest_block: Frozen parameters of the largest block.
    """

    model: "nn.Module"
    parameters: ParameterCounts
    adapter_bytes: int
    frozen_matrices: int
    wide_moments: int
    outside_blocks: int
    largest_block: int


def build_configuration(base: BaseConfiguration, **options: Any) -> "PretrainedConfig":
    """Return transformers' configuration object.

    Raises:
        BaseModelError: transformers does not know the architecture, or the configuration contradicts itself.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    values = {**base.values, **options}
    model_type = values.pop("model_type", None)
    if model_type not in CONFIG_MAPPING:
        raise BaseModelError(
            f"transformers knows no architecture {model_type!r}",
            where=base.origin,
            todo="name a base whose config.json has a model_type that transformers knows, or upgrade it",
        )
    try:
        config = AutoConfig.for_model(model_type, **values)
    except Exception as error:
        # Each family checks its sizes in its own way, or divides by them unchecked.
        raise _refuse_configuration(error, base) from error
    if getattr(config, "pad_token_id", None) is None:
        # Heads on a decoder look for the last token that is not padding.
        config.pad_token_id = 0
    return config


def build_architecture(
    base: BaseConfiguration, config: "PretrainedConfig", model_class: Any, *, attention: str | None = None
) -> Architecture:
    """Build a base with a head from its configuration.

    Args:
        base: What was read of the base.
        config: Its configuration, with the head's size.
        model_class: The name of a class of transformers', or what builds as such a class does.
        attention: The implementation; None: SDPA. A base that lacks it gets ``eager``.

    Raises:
        BaseModelError: transformers has no such class for this base, or its configuration contradicts itself.
    """
    import torch
    import transformers

    auto_class: Any = getattr(transformers, model_class) if isinstance(model_class, str) else model_class
    try:
        with torch.device("meta"), _hold_warnings():
            try:
                model = auto_class.from_config(config, attn_implementation=attention)
            except ValueError:
                model = auto_class.from_config(config, attn_implementation="eager")
            _untie_head(model, base.values)
    except Exception as error:
        if type(config) not in auto_class._model_mapping:
            raise BaseModelError(
                f"transformers has no {model_class} for it",
                where=base.origin,
                todo="choose a base for this task type",
            ) from error
        raise _refuse_configuration(error, base) from error
    return Architecture(model, _list_newly_initialized(model, base))


def adapt_architecture(method: Method, architecture: Architecture) -> AdaptedArchitecture:
    """Put a method on a model without weights, and measure what it trains and saves.

    Raises:
        TrainingError: The method does not fit this base.
    """
    import torch

    packable = _list_packable(architecture.model)
    with torch.device("meta"), _hold_warnings():
        model = method.adapt(architecture.model, architecture.newly_initialized)
    parameters = method.count_parameters(model, architecture.newly_initialized)
    blocks = _count_frozen_blocks(model)
    return AdaptedArchitecture(
        model=model,
        parameters=parameters,
        adapter_bytes=measure_weights_file(method.list_shapes(model)),
        frozen_matrices=_count_frozen(packable),
        wide_moments=count_wide_moments(model),
        outside_blocks=_count_frozen(model.parameters()) - sum(blocks),
        largest_block=max(blocks, default=0),
    )


def measure_weights_file(shapes: Mapping[str, Sequence[int]]) -> int:
    """Return the size in bytes of a safetensors file of fp32 tensors with these names and shapes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(shapes):
        size = 4
        for length in shapes[name]:
            size *= length
        header[name] = {
            "dtype": "F32",
            "shape": list(shapes[name]),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-length // _ALIGNMENT) * _ALIGNMENT + offset


def _refuse_configuration(error: Exception, base: BaseConfiguration) -> BaseModelError:
    # Checks of fields name the field first, and what is wrong with it last.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = " ".join(dict.fromkeys((lines or [""])[:1] + lines[1:][-1:]))
    return BaseModelError(
        f"no model can be built as its config.json says: {type(error).__name__}: {reason}",
        where=base.origin,
        todo="restore the base, or name one whose configuration is whole",
    )


def _untie_head(model: "PreTrainedModel", values: Mapping[str, Any]) -> None:
    """Give the output layer weights of its own where the configuration says that it has them.

    transformers 5 ties them in T5 and MT5 no matter what the configuration says, when no weights are loaded.
    """
    from torch import nn

    bare: Any = model
    outputs, inputs = bare.get_output_embeddings(), bare.get_input_embeddings()
    if values.get("tie_word_embeddings") is not False or not isinstance(outputs, nn.Linear):
        return
    if outputs.weight is getattr(inputs, "weight", None):
        bare.set_output_embeddings(
            nn.Linear(outputs.in_features, outputs.out_features, bias=outputs.bias is not None)
        )


def _list_newly_initialized(model: "PreTrainedModel", base: BaseConfiguration) -> frozenset[str]:
    """Return the parameters that loading the base's weights would leave random."""
    names = [name for name, _ in model.named_parameters()]
    prefix = f"{model.base_model_prefix}."
    if base.stored is not None:
        stored = {name.removeprefix(prefix).rpartition(".")[0] for name in base.stored}
        # By module: older files call a LayerNorm's parameters gamma and beta.
        return frozenset(name for name in names if name.removeprefix(prefix).rpartition(".")[0] not in stored)
    if type(model).__name__ in (base.values.get("architectures") or ()):
        return frozenset()
    return frozenset(name for name in names if not name.startswith(prefix))


def _count_frozen_blocks(model: "nn.Module") -> list[int]:
    """Return the frozen parameters of each block; empty if the blocks are not known."""
    try:
        blocks = find_layers(model)
    except TrainingError:
        return []
    return [_count_frozen(block.module.parameters()) for block in blocks]


def _count_frozen(parameters: "Iterable[nn.Parameter]") -> int:
    return sum(parameter.numel() for parameter in parameters if not parameter.requires_grad)


def _list_packable(model: "PreTrainedModel") -> "list[nn.Parameter]":
    """Return the matrices that transformers packs into four bits when it loads a base for qlora."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.quantizers_utils import should_convert_module

    kept = [*KEPT_MODULES, *(getattr(model, "_keep_in_fp32_modules", None) or ())]
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    # Its modules are typed as any module that has a weight.
    packable: dict[int, Any] = {
        id(module.weight): module.weight
        for name, module in model.named_modules()
        if (type(module) is nn.Linear or isinstance(module, Conv1D)) and should_convert_module(name, kept)
    }
    return [weight for key, weight in packable.items() if key not in embeddings]


@contextmanager
def _hold_warnings() -> Iterator[None]:
    """Suppress the libraries' warnings about building a model: the run itself will show them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
