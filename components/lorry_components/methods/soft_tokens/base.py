"""The common part of the methods that give the base soft tokens."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lorry_components.methods.base import (
    AdaptedModel,
    MethodOptions,
    list_newly_initialized_modules,
    refuse_faults,
)
from lorry_components.methods.peft.base import PeftMethod
from lorry_components.methods.tensors import load_tensors
from lorry_components.models.dimensions import read_embedding_size
from lorry_components.models.model_family import pools_last_token
from lorry_registry.errors import AdapterRejectedError, Fault
from lorry_registry.manifest import CONFIG_NAME

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

    from lorry_components.methods.soft_tokens.insertion import SoftTokens

MODULE = "soft_tokens"
"""The module of an adapted model that holds them."""

_SAVED = "prompt_embeddings"
# PEFT's name of the model inside its wrapper.
_PLACE = "base_model."


class SoftTokenOptions(MethodOptions):
    """Options of all methods with soft tokens.

    Attributes:
        tokens: How many soft tokens are put before the input.
    """

    tokens: Annotated[int, Field(ge=1, le=4096)] = 20


class SoftTokenMethod(PeftMethod):
    """Soft tokens that take positions of the base and are put into its body, below any head.

    PEFT's own wrapper puts them before the whole model, and thus before every generated word, and a head on a
    decoder cannot tell which word is the last. The modules that compute the tokens are PEFT's, and so are the
    files, which PEFT reads back to the same numbers.
    """

    adds_positions = True
    starts_as_base = False
    code_version = 3
    # The names of the parameters that are not in the base's weights.
    _head: frozenset[str] = frozenset()

    def count_added_tokens(self) -> int:
        """Return how many positions the soft tokens take."""
        tokens: int = self.options.tokens
        return tokens

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that the task type reads text."""
        if self.peft_task_type is None:
            yield Fault("method.name", f"{self.name} needs a task type that reads text", "choose lora")

    def adapt(self, model: "PreTrainedModel", newly_initialized: frozenset[str]) -> "nn.Module":
        """Freeze the base and put soft tokens into it."""
        refuse_faults(self.check_base(model.config))
        config: Any = self.build_config(model)
        modules = list_newly_initialized_modules(model, newly_initialized)
        config.modules_to_save = [f"{_PLACE}{name}" for name in modules] or None
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in newly_initialized)
        self._head = newly_initialized
        self.insert(model, config, self.build_encoder(model, config))
        return model

    def build_encoder(self, model: "PreTrainedModel", config: Any) -> "nn.Module":
        """Return PEFT's module for the configuration, which computes the soft tokens from their numbers."""
        from peft import tuners

        known: Any = tuners
        encoder: nn.Module = (
            known.PromptEncoder(config)
            if config.peft_type == "P_TUNING"
            else known.PromptEmbedding(config, model.get_input_embeddings())
        )
        return encoder

    def insert(self, model: "PreTrainedModel", config: Any, encoder: "nn.Module") -> "nn.Module":
        """Put soft tokens into the body of a base and return the module that holds them."""
        from lorry_components.methods.soft_tokens.insertion import insert_soft_tokens
        from lorry_components.models.pooled_model import is_pooled

        soft = self.hold(model, config, encoder)
        # transformers' head that reads the first position reads a soft token's then, as in PEFT; Lorry's own
        # reads the text's.
        reads_first = (
            config.task_type == "SEQ_CLS" and not pools_last_token(model.config) and not is_pooled(model)
        )
        insert_soft_tokens(model, soft, keeps_positions=reads_first)
        return soft

    def hold(self, model: "PreTrainedModel", config: Any, encoder: "nn.Module") -> "SoftTokens":
        """Make the soft tokens a module of the model."""
        from lorry_components.methods.soft_tokens.insertion import SoftTokens

        soft = SoftTokens(config, encoder).to(model.device)
        model.add_module(MODULE, soft)
        return soft

    @property
    def can_be_left_out(self) -> bool:
        """Whether no token before the input is an adapter, which it is to PEFT as well."""
        return True

    def leave_out(self, model: "nn.Module") -> None:
        """Keep no token."""
        soft: Any = model.get_submodule(MODULE)
        soft.count = soft.config.num_virtual_tokens = 0

    def describe_config(self, model: "nn.Module") -> dict[str, Any]:
        """Return PEFT's configuration."""
        soft: Any = model.get_submodule(MODULE)
        document: dict[str, Any] = soft.config.to_dict()
        return document

    def list_shapes(self, model: "nn.Module") -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of the saved tensors, without computing them."""
        soft: Any = model.get_submodule(MODULE)
        head = {f"{_PLACE}{name}": tuple(model.get_parameter(name).shape) for name in self._head}
        return {_SAVED: (soft.count, soft.width), **head}

    def collect_tensors(self, model: "nn.Module") -> "dict[str, torch.Tensor]":
        """Return the soft tokens and the head. The module that computed the tokens is no longer needed."""
        import torch

        soft: Any = model.get_submodule(MODULE)
        was_training = soft.training
        # The tokens are saved without dropout.
        soft.eval()
        with torch.no_grad():
            computed = soft.compute()
        soft.train(was_training)
        return {_SAVED: computed, **{f"{_PLACE}{name}": model.get_parameter(name) for name in self._head}}

    def restore(
        self, model: "PreTrainedModel", folder: Path, newly_initialized: frozenset[str]
    ) -> AdaptedModel:
        """Put the saved soft tokens into the body of a freshly loaded base."""
        config: Any = self.read_config(folder)
        if not isinstance(config.num_virtual_tokens, int) or config.num_virtual_tokens < 0:
            raise AdapterRejectedError(
                f"num_virtual_tokens is {config.num_virtual_tokens!r}",
                where=str(folder / CONFIG_NAME),
                todo="pull it again",
            )
        self._head = newly_initialized
        self.fill(
            model, config, load_tensors(folder, self.describe_tensors(model, config), newly_initialized)
        )
        model.train(mode=False)
        return AdaptedModel(model, lambda: self.without_tokens(model))

    def describe_tensors(self, model: "PreTrainedModel", config: Any) -> "dict[str, torch.Tensor]":
        """Return the tensors that an adapter with this configuration has on a base, without their values."""
        import torch

        width = read_embedding_size(model)
        head = {f"{_PLACE}{name}": model.get_parameter(name) for name in self._head}
        return {_SAVED: torch.empty((config.num_virtual_tokens, width), device="meta"), **head}

    def fill(self, model: "PreTrainedModel", config: Any, tensors: "dict[str, torch.Tensor]") -> None:
        """Put saved tensors into a base."""
        import torch
        from torch import nn

        from_vectors: Any = nn.Embedding.from_pretrained
        self.insert(model, config, from_vectors(tensors[_SAVED]))
        with torch.no_grad():
            for name in self._head:
                model.get_parameter(name).copy_(tensors[f"{_PLACE}{name}"])

    @contextlib.contextmanager
    def without_tokens(self, model: "nn.Module") -> Iterator[None]:
        """Leave the soft tokens out within a context."""
        soft: Any = model.get_submodule(MODULE)
        soft.is_active = False
        try:
            yield
        finally:
            soft.is_active = True


def describe_size(model: "PreTrainedModel") -> dict[str, Any]:
    """Return PEFT's fields for the size of a base. PEFT itself knows few of the names that they have."""
    text = model.config.get_text_config()
    return {
        "token_dim": read_embedding_size(model),
        "num_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        # Where there is an encoder and a decoder, only the encoder gets tokens, as in Lester et al. 2021.
        "num_transformer_submodules": 1,
    }
