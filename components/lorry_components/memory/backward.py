"""The temporary tensors of a backward pass, seen from the storages that are alive on the meta device."""

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lorry_components.memory.device_emulation import imitate_device

if TYPE_CHECKING:
    import torch
    from torch import nn


def measure_backward(model: "nn.Module", run: "Callable[[], torch.Tensor]", *, on_cuda: bool) -> int:
    """Run a model forward and backward, and return the most bytes that are alive at a time.

    Parameters are not counted, and their gradients only until they are complete: a plan counts both
    separately. What is left are the activations that autograd keeps, and what operations allocate and free.

    Args:
        model: On the meta device, in the state in which it is trained.
        run: Calls it on a batch, and returns the loss.
        on_cuda: Whether it stands for one on a GPU.
    """
    alive = _Alive({tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())})
    hooks = [
        parameter.register_post_accumulate_grad_hook(_drop_gradient)  # type: ignore[no-untyped-call]
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    was_training = model.training
    model.train()
    try:
        with _watch_storages(alive), imitate_device(on_cuda=on_cuda):
            run().backward()  # type: ignore[no-untyped-call]
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return alive.peak


def _drop_gradient(parameter: "torch.Tensor") -> None:
    parameter.grad = None


class _Alive:
    """Adds up storages as they are allocated, and subtracts them when they are freed."""

    def __init__(self, ignored: set[int]) -> None:
        self.peak = 0
        self._now = 0
        self._known = ignored

    def note(self, storage: "torch.UntypedStorage") -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def _watch_storages(alive: _Alive) -> Any:
    """Return a context in which the storages that operations allocate are noted."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            made = func(*args, **(kwargs or {}))
            for tensor in tree_leaves(made):
                if isinstance(tensor, torch.Tensor):
                    alive.note(tensor.untyped_storage())
            return made

    return Mode()  # type: ignore[no-untyped-call]
