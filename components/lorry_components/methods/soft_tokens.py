"""What the methods that give the base soft tokens have in common."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from lorry_components.methods.base import MethodOptions, refuse_faults
from lorry_components.methods.layers import read_hidden_size
from lorry_components.methods.peft_method import PeftMethod
from lorry_registry.errors import Fault

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel


class SoftTokenOptions(MethodOptions):
    """Options of all methods with soft tokens.

    Attributes:
        tokens: Soft tokens put before the input.
    """

    tokens: Annotated[int, Field(ge=1, le=4096)] = 20


class SoftTokenMethod(PeftMethod):
    """A PEFT method whose soft tokens take up positions of the base."""

    def count_added_tokens(self) -> int:
        """Return how many positions the soft tokens take up."""
        tokens: int = self.options.tokens
        return tokens

    def check_base(self, config: "PretrainedConfig") -> Iterator[Fault]:
        """Check that soft tokens reach this kind of task's head on this base."""
        yield from check_soft_tokens(self.name, config, config.model_type, self.task_type)

    def adapt(self, model: "PreTrainedModel", fresh: frozenset[str]) -> "nn.Module":
        """Wrap the base with PEFT."""
        refuse_faults(check_soft_tokens(self.name, model.config, type(model).__name__, self.task_type))
        return super().adapt(model, fresh)


def describe_size(config: "PretrainedConfig") -> dict[str, Any]:
    """Return PEFT's fields for the size of a base: by itself it knows them by few of their names."""
    text = config.get_text_config()
    return {
        "token_dim": read_hidden_size(config),
        "num_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
    }


def check_soft_tokens(
    name: str, config: "PretrainedConfig", model: str, task_type: str | None
) -> Iterator[Fault]:
    """Say why soft tokens before the input do not work with a kind of task on a base.

    Args:
        name: The method, for the message.
        config: The base's configuration.
        model: What to call the base.
        task_type: PEFT's name for the kind of task.
    """
    if task_type is None:
        yield Fault("method.name", f"PEFT feeds no soft tokens to this kind of task; {name} is not possible")
    elif task_type == "CAUSAL_LM":
        # PEFT 0.21 looks for the cache under the name that it had before transformers 5.2x.
        yield Fault(
            "method.name",
            f"PEFT would put the soft tokens of {name} before every word that is generated; "
            "choose p-tuning-v2, lora or an adapter",
        )
    elif task_type == "SEQ_CLS" and _needs_ids(config):
        yield Fault(
            "method.name",
            f"{name} does not fit {model}: its head reads the last token, which cannot be told from padding "
            "once soft tokens stand before it; choose p-tuning-v2, lora or an adapter, or an encoder as base",
        )
    elif task_type == "QUESTION_ANS" and _needs_ids(config):
        yield Fault(
            "method.name",
            f"{name} does not fit {model}: its decoder reads the input once more by its ids, and soft tokens "
            "have none; choose lora or an adapter, or an encoder as base",
        )


def count_positions(config: "PretrainedConfig") -> int | None:
    """Return the longest sequence that a base takes; None: it has no limit of its own."""
    text = config.get_text_config()
    positions: int | None = getattr(text, "max_position_embeddings", None)
    if positions is not None and ("roberta" in text.model_type or text.model_type == "camembert"):
        # RoBERTa's positions start behind the padding token's.
        return positions - 2
    return positions


def _needs_ids(config: "PretrainedConfig") -> bool:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    is_decoder = (
        config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        and config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )
    return is_decoder or bool(config.is_encoder_decoder)
