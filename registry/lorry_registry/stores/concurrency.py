"""Several requests at once, for stores in which a request mostly waits."""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def map_concurrent(function: Callable[[_T], _R], items: Iterable[_T], concurrency: int) -> Iterator[_R]:
    """Yield a function's results in the order of the items, with up to ``concurrency`` calls running at once.

    No more than a few items for each thread are taken in advance, however many there are: what is yielded can
    be used up as it comes.

    Args:
        function: Called in threads of a pool, unless ``concurrency`` is 1.
        items: The items.
        concurrency: How many calls run at once; 1: they run one after the other, in the caller's thread.

    Raises:
        Exception: What the function raises, in the place of its result; no further call is begun.
    """
    if concurrency == 1:
        yield from map(function, items)
        return
    remaining = iter(items)
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="lorry")
    try:
        begun: collections.deque[Future[_R]] = collections.deque(
            pool.submit(function, item) for item in itertools.islice(remaining, 4 * concurrency)
        )
        while begun:
            yield begun.popleft().result()
            begun.extend(pool.submit(function, item) for item in itertools.islice(remaining, 1))
    finally:
        # A caller that stops taking results does not wait for calls that were not begun.
        pool.shutdown(cancel_futures=True)
