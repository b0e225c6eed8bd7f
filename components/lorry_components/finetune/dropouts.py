"""Dropout, which families of models call by different names."""

from typing import Any

from lorry_registry.task_spec import TrainSpec

_NAMES = {
    "attention": ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout"),
    "hidden": ("hidden_dropout_prob", "resid_pdrop", "embd_pdrop", "dropout", "dropout_rate"),
}


def list_dropouts(train: TrainSpec, config: Any) -> dict[str, float]:
    """Return the fields of a base's configuration for the dropouts that a task sets."""
    wanted = {"attention": train.attention_dropout, "hidden": train.hidden_dropout}
    return {
        name: value
        for group, value in wanted.items()
        if value is not None
        for name in _NAMES[group]
        if hasattr(config, name)
    }
