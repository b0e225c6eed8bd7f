"""Checkpoints that hold every trained parameter, the method's state, and nothing of the base.

PEFT's own are made for inference: those of P-tuning drop the encoder, so that training could not go on from
them.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_components.methods import Method

if TYPE_CHECKING:
    import torch
    from torch import nn

STATE_NAME = "trainer_state.json"
"""Where transformers' Trainer keeps its state in a checkpoint. It is written last."""

_TRAINED_NAME = "trained.safetensors"
_METHOD_NAME = "method.safetensors"


def name_checkpoint(folder: Path, step: int) -> Path:
    """Return where Trainer writes the checkpoint of a step."""
    return folder / f"checkpoint-{step}"


def read_step(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def find_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint below a folder, or None.

    Trainer writes its state last, so a checkpoint that was cut short by a kill has none.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=read_step, reverse=True):
        try:
            json.loads((checkpoint / STATE_NAME).read_text("utf-8"))
        except (OSError, ValueError):
            continue
        return checkpoint
    return None


def save_trained(model: "nn.Module", method: Method, folder: Path) -> None:
    """Write what is trained, and the method's state, into a folder that may not exist yet."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(_list_trained(model), folder / _TRAINED_NAME)
    # Most methods have no state, and safetensors would write a file without a tensor.
    if state := method.export_state(model):
        save_file(state, folder / _METHOD_NAME)


def load_trained(model: "nn.Module", method: Method, folder: Path) -> None:
    """Read what :func:`save_trained` wrote into a model that was adapted in the same way."""
    import torch
    from safetensors.torch import load_file

    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in load_file(folder / _TRAINED_NAME).items():
            parameters[name].copy_(tensor)
    path = folder / _METHOD_NAME
    if path.exists():
        method.import_state(model, load_file(path))


def _list_trained(model: "nn.Module") -> "dict[str, torch.Tensor]":
    return {
        name: parameter.detach().cpu().contiguous().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
