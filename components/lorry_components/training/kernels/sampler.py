"""Batches of like length, in an order that depends on the seed and the epoch alone.

transformers' own grouping by length draws from the global random state, so that a resumed training sees other
batches than an uninterrupted one. Here the order of an epoch is a pure function.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

_BATCHES_IN_POOL = 50


def order_by_length(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[int]:
    """Return an order of examples in which every ``batch_size`` of them are of like length.

    Examples are shuffled and cut into pools of fifty batches; each pool is sorted by length and cut into
    batches, and the batches are shuffled. The short batch, if there is one, comes last.

    Args:
        lengths: The length of each example, in tokens.
        batch_size: Examples in a batch.
        seed: The task's seed.
        epoch: The epoch, from 0.
    """
    generator = np.random.default_rng((seed, epoch))
    shuffled = generator.permutation(len(lengths))
    remainder = len(shuffled) % batch_size
    # The examples of the short last batch are drawn before sorting; otherwise it would hold the longest ones.
    body, tail = shuffled[: len(shuffled) - remainder], shuffled[len(shuffled) - remainder :]
    sizes = np.asarray(lengths)
    pool = _BATCHES_IN_POOL * batch_size
    grouped = [
        members[np.argsort(sizes[members], kind="stable")]
        for members in (body[start : start + pool] for start in range(0, len(body), pool))
    ]
    batches = np.concatenate(grouped).reshape(-1, batch_size) if grouped else body.reshape(0, batch_size)
    generator.shuffle(batches)
    return [*batches.ravel().tolist(), *tail.tolist()]


class LengthGroupedSampler(Sampler[int]):
    """Yields the rows of the current epoch in their order.

    Args:
        lengths: The length of each example, in tokens.
        batch_size: Examples in a batch.
        seed: The task's seed.
        read_epoch: Returns the current epoch when an iteration starts.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, read_epoch: Callable[[], int]
    ) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._read_epoch = read_epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        epoch = self._read_epoch()
        return iter(order_by_length(self._lengths, self._batch_size, seed=self._seed, epoch=epoch))
