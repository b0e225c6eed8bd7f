"""Frozen weights in shares: each process holds a part of them, in its GPU or in the memory of its host.

FSDP2 (torch's ``fully_shard``) gathers a block's weights when the block is computed, and lets go of them
afterwards. The trained parameters are few: every process keeps all of them, and their gradients are averaged,
so that checkpoints and adapters are written as without shares.
"""

from typing import Any

import torch
from torch import distributed, nn

from lorry_components.models.blocks import find_layers


def shard_frozen(model: nn.Module, device: torch.device) -> None:
    """Divide the frozen weights of an adapted model among the processes, in the hosts' memory.

    Args:
        model: In the host's memory, as it was loaded.
        device: Where this process computes.
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
    """Make a group of one of a process that trains alone."""
    if distributed.is_initialized():
        return
    # torch does not list it among what it exports.
    store: Any = vars(distributed)["HashStore"]
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store(), rank=0, world_size=1)
