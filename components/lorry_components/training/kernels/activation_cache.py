"""The blocks below the first trained one, computed once: their outputs for a row are the same in each epoch.

Where only the top blocks are adapted, most of a training step is spent on what does not change. The hidden
states that enter the first trained block are kept on disk, in the format in which they were computed, and
read back in each step. The price is disk space (rows times tokens times the width of the base), and that
dropout below the first trained block is off.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lorry_components.models.blocks import Block, find_layers
from lorry_components.models.model_family import is_encoder_decoder
from lorry_registry.errors import StoreError, TrainingError
from lorry_registry.text.sizes import format_in

ROW = "row"
"""The feature that holds the number of a row."""

STATES = "frozen_prefix_states"
"""The input that holds the states of a batch, shape (tokens of all its rows, width)."""

NO_INPUTS = frozenset({"labels", "start_positions", "end_positions"})
"""The features that a loss is computed against."""

Features = dict[str, Any]
Collate = Callable[[Sequence[int]], Any]
Collator = Callable[[list[Features]], Any]


class _ReachedError(Exception):
    """Ends a forward pass at the first trained block: nothing after it is needed."""


class FrozenPrefix:
    """The blocks of an adapted model below the first trained one.

    Args:
        model: The adapted model.
        inputs: A batch of its inputs, without labels.

    Raises:
        TrainingError: The architecture is not known, or the very first block is trained.
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        whole: Any = model
        if is_encoder_decoder(whole.config):
            raise TrainingError(
                "the outputs of frozen layers can be kept for one stack of layers, and this base has two",
                where="train.cache_frozen_layers",
                todo="leave it out",
            )
        self._model = model
        blocks = find_layers(model)
        # For each block below, how many values it returns in a tuple; 0: its states alone.
        self._forms = _list_frozen(model, blocks, inputs)
        self.depth = len(self._forms)
        if self.depth == 0:
            raise TrainingError(
                "there are no frozen layers below the trained ones whose outputs could be kept",
                where="train.cache_frozen_layers",
                todo="adapt the top layers only (method.layers, for methods that have it), or leave it out",
            )
        self._skipped = [block.module for block in blocks[: self.depth]]
        self._first = blocks[self.depth].module
        self._states: torch.Tensor | None = None
        self._mask: torch.Tensor | None = None

    def compute(
        self,
        batches: Sequence[Sequence[int]],
        collate: Collate,
        lengths: Sequence[int],
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield each row's number and states, shape (tokens, width).

        Args:
            batches: The numbers of the rows of each batch.
            collate: Returns a padded batch of some rows, without labels.
            lengths: The tokens of each row.
        """
        reached: list[torch.Tensor] = []

        def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            reached.append(_read_states(args, kwargs))
            raise _ReachedError

        handle = self._first.register_forward_pre_hook(stop, with_kwargs=True)
        was_training = self._model.training
        self._model.eval()
        try:
            for rows in batches:
                inputs = collate(rows)
                with torch.no_grad(), contextlib.suppress(_ReachedError):
                    self._model(**inputs)
                states = reached.pop()
                mask = inputs["attention_mask"].bool()
                for number, row, kept in zip(rows, states, mask, strict=True):
                    if int(kept.sum()) != lengths[number]:
                        raise RuntimeError("a batch does not hold the tokens of its rows")
                    yield number, row[kept]
        finally:
            handle.remove()
            self._model.train(was_training)

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Skip the blocks in passes for which :meth:`replaying` provides their states."""
        with contextlib.ExitStack() as stack:
            for module, form in zip(self._skipped, self._forms, strict=True):
                stack.enter_context(_passing(module, form, lambda: self._states is not None))
            handle = self._first.register_forward_pre_hook(self._give, with_kwargs=True)
            stack.callback(handle.remove)
            yield

    @contextlib.contextmanager
    def replaying(self, states: torch.Tensor, mask: torch.Tensor) -> Iterator[None]:
        """Use these states, shape (tokens of all rows, width), for the batch with this mask."""
        self._states, self._mask = states, mask.bool()
        try:
            yield
        finally:
            self._states = self._mask = None

    def _give(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._states is None or self._mask is None:
            return None
        shape = (*self._mask.shape, self._states.shape[-1])
        # The values at padding are masked.
        padded = torch.zeros(shape, dtype=self._states.dtype, device=self._states.device)
        padded[self._mask] = self._states
        if args:
            return (padded, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": padded}


class StateFile:
    """States of many rows in a memory-mapped file, which is deleted with its folder.

    Args:
        path: A new file.
        lengths: The tokens of each row.

    Raises:
        StoreError: The disk is full.
    """

    def __init__(self, path: Path, lengths: Sequence[int]) -> None:
        self._path = path
        self._starts = [0]
        for length in lengths:
            self._starts.append(self._starts[-1] + length)
        self._tensor: torch.Tensor | None = None

    def write(self, number: int, states: torch.Tensor) -> None:
        """Write the states of a row."""
        if self._tensor is None:
            self._tensor = self._allocate(states)
        self._tensor[self._starts[number] : self._starts[number + 1]] = states

    def read(self, numbers: Sequence[int]) -> torch.Tensor:
        """Return the states of some rows, one after the other, shape (tokens, width)."""
        if self._tensor is None:
            raise RuntimeError("no states were written")
        return torch.cat([self._tensor[self._starts[n] : self._starts[n + 1]] for n in numbers])

    def _allocate(self, states: torch.Tensor) -> torch.Tensor:
        width, tokens = states.shape[-1], self._starts[-1]
        size = tokens * width * states.element_size()
        try:
            with self._path.open("wb") as stream:
                # Writing to a sparse file would end in a signal where the disk turns out to be too small.
                _reserve(stream.fileno(), size)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise StoreError(
                f"the outputs of the frozen layers take {format_in(size, 'GiB', digits=2)}, "
                "more than the disk has free",
                where=str(self._path.parent),
                todo="make room, or leave out train.cache_frozen_layers",
            ) from error
        flat = torch.from_file(str(self._path), shared=True, size=tokens * width, dtype=states.dtype)
        return flat.view(tokens, width)


class PrefixCollator:
    """Pads a batch as the task type does, and adds the states of its rows.

    Args:
        collate: The task type's collator.
        states: The states of all rows.
    """

    def __init__(self, collate: Collator, states: StateFile) -> None:
        self._collate = collate
        self._states = states

    def __call__(self, features: list[Features]) -> Any:
        """Return the batch."""
        numbers = [row[ROW] for row in features]
        batch = self._collate([{name: row[name] for name in row if name != ROW} for row in features])
        batch[STATES] = self._states.read(numbers)
        return batch


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def _read_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    states: torch.Tensor = args[0] if args else kwargs["hidden_states"]
    return states


def _list_frozen(model: nn.Module, blocks: Sequence[Block], inputs: Any) -> list[int]:
    """Return the forms of the outputs of the blocks below the first trained one.

    Autograd is asked, and not the names of parameters: a block's input has a gradient if anything below it is
    trained.
    """
    entered: list[bool] = []
    forms: list[int | None] = []

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append(_read_states(args, kwargs).requires_grad)

    def leave(_module: nn.Module, _args: Any, output: Any) -> None:
        forms.append(_find_form(output))

    handles = [block.module.register_forward_pre_hook(enter, with_kwargs=True) for block in blocks]
    handles += [block.module.register_forward_hook(leave) for block in blocks]
    try:
        with torch.random.fork_rng(devices=[]):
            model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    if len(entered) != len(blocks):
        # Some blocks are run more than once, or not at all.
        return []
    frozen: list[int] = []
    for has_gradient, form in zip(entered[1:], forms, strict=False):
        if has_gradient or form is None:
            break
        frozen.append(form)
    return frozen


def _find_form(output: Any) -> int | None:
    """Return how many values a block returns in a tuple, 0 for its states alone, None for other outputs."""
    if isinstance(output, torch.Tensor):
        return 0
    is_plain = isinstance(output[0], torch.Tensor) and all(part is None for part in output[1:])
    return len(output) if is_plain else None


@contextlib.contextmanager
def _passing(module: nn.Module, form: int, is_skipped: Callable[[], bool]) -> Iterator[None]:
    """Let a block return its input where it is skipped."""
    forward: Any = module.forward

    def pass_on(*args: Any, **kwargs: Any) -> Any:
        if not is_skipped():
            return forward(*args, **kwargs)
        states = _read_states(args, kwargs)
        return (states, *[None] * (form - 1)) if form else states

    module.forward = pass_on
    try:
        yield
    finally:
        module.forward = forward
