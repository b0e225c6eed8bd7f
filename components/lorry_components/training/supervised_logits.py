"""Outputs over a vocabulary for the positions that count in the loss, and no others.

A causal language model computes a number for each token of its vocabulary at each position: with 262,144
tokens, as Gemma has, they take more memory than all else and much of the time. Of a prompt none is needed.
The output layer is given the states of the supervised positions alone; what comes after it, such as Gemma's
soft-capping, does not look at positions.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.loss.loss_utils import ForCausalLMLoss

from lorry_components.task_types.base import IGNORED


@contextlib.contextmanager
def choose_states(model: nn.Module, choose: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Let the output layer of a model see some positions only.

    Args:
        model: A causal language model, adapted or not, and in no wrapper.
        choose: Takes all states, shape (rows, tokens, width), and returns those that count, in three
            dimensions again.
    """

    def replace(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (choose(args[0]), *args[1:])

    bare: Any = model
    handle = bare.get_output_embeddings().register_forward_pre_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def compute_next_token_loss(model: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
    """Return the mean cross-entropy over the supervised tokens of a batch, and the model's outputs.

    It is the model that computes the loss, for methods may add to it, as AdaLoRA does.

    Args:
        model: A causal language model, in a wrapper of torch's where several processes train.
        inputs: Its inputs, with ``labels``, shape (rows, tokens): a token at each supervised position, which
            the position before it has to predict, and -100 elsewhere.
    """
    bare = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    if not _takes_chosen_labels(bare):
        outputs = model(**inputs)
        return outputs.loss, outputs
    following = inputs["labels"][:, 1:]
    is_supervised = following.ne(IGNORED)
    # The last position has nothing to predict.
    positions = functional.pad(is_supervised, (0, 1), value=False)

    def choose(states: torch.Tensor) -> torch.Tensor:
        # Soft tokens may stand before the input.
        return states[:, -positions.shape[1] :][positions].unsqueeze(0)

    targets = following[is_supervised]
    with choose_states(bare, choose):
        outputs = model(**inputs, shift_labels=targets[None], num_items_in_batch=max(1, len(targets)))
    return outputs.loss, outputs


def _takes_chosen_labels(model: Any) -> bool:
    """Return whether a model hands labels of chosen positions on to transformers' own loss."""
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    kinds = {parameter.kind for parameter in inspect.signature(bare.forward).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds and bare.loss_function is ForCausalLMLoss
