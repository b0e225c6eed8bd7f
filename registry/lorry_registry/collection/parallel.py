"""Many small requests at once: a collection waits for the store, and for little else."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# As many as a client of boto3 keeps connections.
_WORKERS = 10

_A = TypeVar("_A")
_B = TypeVar("_B")


def map_parallel(action: Callable[[_A], _B], items: Iterable[_A]) -> list[_B]:
    """Return what an action makes of each item, in their order.

    Raises:
        Exception: That of the first item whose action fails, after the others have ended.
    """
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="lorry-gc") as pool:
        return list(pool.map(action, items))
