"""Frozen weights in shares: each process holds a part of them, in the memory of its host.

FSDP2 (torch's ``fully_shard``) gathers a block's weights when the block is computed, and frees them
afterwards. The trained parameters are few: every process keeps all of them, and their gradients are
averaged, so that checkpoints and adapters are written in the same way as without shares.
"""

from typing import Any

import torch
from torch import distributed, nn

from lorry_components.models.blocks import find_layers


def shard_frozen(model: nn.Module, device: torch.device) -> None:
    """Divide the frozen weights of an adapted model among the processes, in their hosts' memory.

    Args:
        model: The adapted model, in the host's memory as it was loaded.
        device: The device on which this process computes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

    _join_processes(device)
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for parameter in trained:
        parameter.data = parameter.data.to(device)
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (distributed.get_world_size(),)),
        "ignored_params": trained,
        "offload_policy": CPUOffloadPolicy(pin_memory=device.type == "cuda"),
    }
    for block in find_layers(model):
        fully_shard(block.module, **options)
    fully_shard(model, **options)


def _join_processes(device: torch.device) -> None:
    """Make a group of one for a process that trains alone."""
    if distributed.is_initialized():
        return
    # torch documents it, and does not export it to type checkers: its builds for Windows lack it.
    store: Any = vars(distributed)["HashStore"]
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store(), rank=0, world_size=1)
