"""PreLayer: the activations of a prefix are learned after every layer.

This is prefix-layer tuning in Hu et al. 2021 (https://arxiv.org/abs/2106.09685, section 5.1), after Li and
Liang 2021: at the input of every block, learned vectors replace the block below's outputs at the positions of
the prefix.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lorry_components.methods.soft_tokens.base import SoftTokenMethod, SoftTokenOptions, describe_size
from lorry_components.models.blocks import build_skeleton, find_layers
from lorry_components.models.dimensions import read_hidden_size
from lorry_components.models.model_family import is_encoder_decoder
from lorry_registry.errors import AdapterRejectedError, Fault, TrainingError

if TYPE_CHECKING:
    import torch
    from peft import PromptTuningConfig
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

_MODULE = "layer_prompts"
_SAVED = f"{_MODULE}.weight"


class PreLayer(SoftTokenMethod):
    """A prefix whose activations are learned at the input of every block.

    Prompt tuning provides the positions; its tokens are the prefix at the first block's input.
    """

    name = "prelayer"
    summary = "learned activations of a prefix after every layer"
    learning_rate = 1e-2
    # PEFT would load it as prompt tuning, without the other layers; it refuses this name.
    peft_type = "LORRY_PRELAYER"
    options_model = SoftTokenOptions

    def build_config(self, model: "PreTrainedModel") -> "PromptTuningConfig":
        """Return the configuration of prompt tuning, which provides the positions."""
        from peft import PromptTuningConfig

        return PromptTuningConfig(
            task_type=self.peft_task_type,
            num_virtual_tokens=self.options.tokens,
            prompt_tuning_init="SAMPLE_VOCAB",
            **describe_size(model),
        )

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that the base is one stack of known blocks."""
        yield from super().check_base(config)
        if is_encoder_decoder(config):
            yield Fault("method.name", "prelayer is for one stack of blocks", "choose prompt-tuning or lora")
            return
        try:
            find_layers(build_skeleton(config))
        except TrainingError as error:
            yield Fault(error.where, error.what, error.todo)

    def insert(self, model: "PreTrainedModel", config: Any, encoder: "nn.Module") -> "nn.Module":
        """Put the prefix before the input and its activations into the blocks."""
        blocks = find_layers(model)
        soft = super().insert(model, config, encoder)
        width = read_hidden_size(model.config)
        prompts = _build_prompts(len(blocks) - 1, config.num_virtual_tokens, width)
        model.add_module(_MODULE, prompts.to(model.device))
        for index, block in enumerate(blocks[1:]):
            block.module.register_forward_pre_hook(_make_hook(prompts, index), with_kwargs=True)
        return soft

    def fill(self, model: "PreTrainedModel", config: Any, tensors: "dict[str, torch.Tensor]") -> None:
        """Load saved tensors into a base."""
        import torch

        super().fill(model, config, tensors)
        prompts: Any = model.get_submodule(_MODULE)
        with torch.no_grad():
            prompts.weight.copy_(tensors[_SAVED])

    def leave_out(self, model: "nn.Module") -> None:
        """Keep no token, and none of their activations."""
        from torch import nn

        super().leave_out(model)
        prompts: Any = model.get_submodule(_MODULE)
        prompts.weight = nn.Parameter(prompts.weight[:, :0])

    @contextlib.contextmanager
    def without_tokens(self, model: "nn.Module") -> Iterator[None]:
        """Leave the prefix and its activations out within a context."""
        prompts: Any = model.get_submodule(_MODULE)
        prompts.is_active = False
        try:
            with super().without_tokens(model):
                yield
        finally:
            prompts.is_active = True

    def describe_config(self, model: "nn.Module") -> dict[str, Any]:
        """Return prompt tuning's configuration, under a type that only this method reads."""
        return super().describe_config(model) | {"peft_type": self.peft_type}

    def list_shapes(self, model: "nn.Module") -> dict[str, tuple[int, ...]]:
        """Return the shapes of prompt tuning's tensors and of the activations."""
        prompts: Any = model.get_submodule(_MODULE)
        return super().list_shapes(model) | {_SAVED: tuple(prompts.weight.shape)}

    def collect_tensors(self, model: "nn.Module") -> "dict[str, torch.Tensor]":
        """Return prompt tuning's tensors and the activations."""
        prompts: Any = model.get_submodule(_MODULE)
        return super().collect_tensors(model) | {_SAVED: prompts.weight}

    def describe_tensors(self, model: "PreTrainedModel", config: Any) -> "dict[str, torch.Tensor]":
        """Return prompt tuning's tensors and the activations, without their values."""
        import torch

        shape = (len(find_layers(model)) - 1, config.num_virtual_tokens, read_hidden_size(model.config))
        return super().describe_tensors(model, config) | {_SAVED: torch.empty(shape, device="meta")}

    def find_config_class(self, peft_type: object, path: str) -> Any:
        """Return prompt tuning's class for this method's type."""
        from peft import PromptTuningConfig

        if peft_type != self.peft_type:
            raise AdapterRejectedError(
                f"peft_type is {peft_type!r}, and that of {self.name} is {self.peft_type!r}",
                where=path,
                todo="pull it again, or upgrade lorry",
            )
        return PromptTuningConfig


def _build_prompts(blocks: int, tokens: int, hidden: int) -> "nn.Module":
    import torch
    from torch import nn

    class LayerPrompts(nn.Module):
        """The activations, shape (blocks but the first, tokens, width)."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(blocks, tokens, hidden) * 0.02)
            self.is_active = True

    return LayerPrompts()


def _make_hook(prompts: Any, index: int) -> Any:
    import torch
    from transformers import Cache

    def replace(_module: "nn.Module", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        caches = [value for value in (*args, *kwargs.values()) if isinstance(value, Cache)]
        # When text is generated, the prefix is in the cache, and only new tokens pass through.
        if not prompts.is_active or any(cache.get_seq_length(index + 1) for cache in caches):
            return None
        hidden = args[0] if args else kwargs["hidden_states"]
        prefix = prompts.weight[index].to(hidden.dtype).expand(hidden.shape[0], -1, -1)
        changed = torch.cat([prefix, hidden[:, prefix.shape[1] :]], dim=1)
        return ((changed, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": changed})

    return replace
