"""Logits for the positions that count in the loss, and no others.

A causal language model computes a logit for each token of its vocabulary at each position: with the 262,144
tokens of Gemma, they take more memory than everything else, and much of the time. The positions of a prompt
need none. The output layer is given the states of the supervised positions alone; what follows it, such as
Gemma's soft-capping, treats every position alike.
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
    """Give the output layer of a model some positions only.

    Args:
        model: A causal language model, adapted or not, without a wrapper for several processes.
        choose: Takes all states, shape (rows, tokens, width), and returns those that count, again in three
            dimensions.
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

    The model itself computes the loss, because methods may add to it, as AdaLoRA does.

    Args:
        model: A causal language model, in torch's wrapper where several processes train.
        inputs: Its inputs, with ``labels``, shape (rows, tokens): the token at each supervised position,
        which
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
        # A method may have put soft tokens before the input.
        return states[:, -positions.shape[1] :][positions].unsqueeze(0)

    targets = following[is_supervised]
    with choose_states(bare, choose):
        outputs = model(**inputs, shift_labels=targets[None], num_items_in_batch=max(1, len(targets)))
    return outputs.loss, outputs


def _takes_chosen_labels(model: Any) -> bool:
    """Return whether a model passes the labels of chosen positions on to transformers' own loss."""
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    parameters = inspect.signature(bare.forward).parameters.values()
    takes_options = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return takes_options and bare.loss_function is ForCausalLMLoss
