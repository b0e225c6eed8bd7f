"""Dropout, which architectures call by different names."""

from collections.abc import Iterator
from typing import Any

from lorry_registry.errors import Fault
from lorry_registry.tasks.task_spec import TrainSpec

_ATTENTION = ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout")
_HIDDEN = (
    *("hidden_dropout_prob", "hidden_dropout", "dropout", "dropout_rate"),
    *("resid_pdrop", "resid_dropout", "embd_pdrop", "emb_pdrop", "embed_dropout"),
    *("embedding_dropout", "mlp_dropout"),
)


def list_dropouts(train: TrainSpec, config: Any) -> dict[str, float]:
    """Return the fields of a base's configuration for the dropouts that a task sets."""
    fields = dict.fromkeys(_find_fields(config, _ATTENTION), train.attention_dropout)
    if train.hidden_dropout is not None:
        fields |= dict.fromkeys(_find_fields(config, _HIDDEN), train.hidden_dropout)
    return fields


def check_dropouts(train: TrainSpec, config: Any) -> Iterator[Fault]:
    """Check that a base has the dropouts that a task asks for: Llama has none of hidden layers, say."""
    if train.hidden_dropout and not _find_fields(config, _HIDDEN):
        yield Fault(
            "train.hidden_dropout", f"a {config.model_type} has no dropout of hidden layers", "leave it out"
        )
    if train.attention_dropout and not _find_fields(config, _ATTENTION):
        yield Fault(
            "train.attention_dropout",
            f"a {config.model_type} has no dropout of attention weights of its own",
            "leave it out",
        )


def _find_fields(config: Any, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if hasattr(config, name)]
