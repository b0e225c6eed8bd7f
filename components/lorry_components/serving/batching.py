"""The queue in front of the base: rows of concurrent requests that can go through it together do."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lorry_components.serving.catalogue import ServedVersion
from lorry_components.task_types import Prediction, Row
from lorry_registry.errors import LorryError

Answer = list[Prediction] | LorryError


@dataclass(frozen=True, slots=True)
class Work:
    """The rows of one request, and the version that answers them."""

    version: ServedVersion
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class _Waiting:
    work: Work
    answer: "asyncio.Future[Answer]"


class QueueFullError(Exception):
    """More rows are waiting than may wait."""


class Batcher:
    """Gathers work for a few milliseconds and computes it in one thread, the longest waiting first.

    Args:
        compute: Returns the answers to a batch of work of one group.
        window: For how many seconds work may wait for more.
        batch_rows: A batch is not filled beyond so many rows.
        queue_rows: So many rows may wait.

    Attributes:
        on_batch: Called with the number of rows of each batch.
    """

    on_batch: Callable[[int], None] | None = None

    def __init__(
        self,
        compute: Callable[[Sequence[Work]], list[Answer]],
        *,
        window: float = 0.003,
        batch_rows: int = 64,
        queue_rows: int = 4096,
    ) -> None:
        self._compute = compute
        self._window = window
        self._batch_rows = batch_rows
        self._queue_rows = queue_rows
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        # One thread: tokenizers are not safe in several, and the base takes all cores as it is.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    @property
    def waiting_rows(self) -> int:
        """How many rows wait."""
        return sum(len(waiting.work.rows) for waiting in self._waiting)

    async def predict(self, version: ServedVersion, rows: Sequence[Row]) -> list[Prediction]:
        """Return one prediction a row.

        Raises:
            QueueFullError: Too many rows are waiting.
            LorryError: The rows do not fit the base.
        """
        if self._waiting and self.waiting_rows + len(rows) > self._queue_rows:
            raise QueueFullError
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(Work(version, rows), answer))
        self._arrived.set()
        found = await answer
        if isinstance(found, LorryError):
            raise found
        return found

    async def run(self) -> None:
        """Compute what arrives, until this is cancelled."""
        try:
            while True:
                await self._arrived.wait()
                await asyncio.sleep(self._window)
                await self._compute_waiting()
        finally:
            self._thread.shutdown(wait=False)

    async def _compute_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := take_batch(self._waiting, self._batch_rows):
            work = [waiting.work for waiting in batch]
            if self.on_batch is not None:
                self.on_batch(sum(len(each.rows) for each in work))
            try:
                answers = await loop.run_in_executor(self._thread, self._compute, work)
            except Exception as error:  # noqa: BLE001 - the requests fail with it, and the others go on
                for waiting in batch:
                    if not waiting.answer.done():
                        waiting.answer.set_exception(error)
                continue
            for waiting, answer in zip(batch, answers, strict=True):
                # A request whose client has gone was cancelled.
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)
        self._arrived.clear()


def take_batch(queue: deque[_Waiting], batch_rows: int) -> list[_Waiting]:
    """Take the longest waiting work out of a queue, with more of its group up to a number of rows."""
    while queue and queue[0].answer.done():
        queue.popleft()
    if not queue:
        return []
    group = queue[0].work.version.group
    taken: list[_Waiting] = []
    left: list[_Waiting] = []
    rows = 0
    for waiting in queue:
        fits = not taken or rows + len(waiting.work.rows) <= batch_rows
        if waiting.work.version.group == group and fits and not waiting.answer.done():
            taken.append(waiting)
            rows += len(waiting.work.rows)
        else:
            left.append(waiting)
    queue.clear()
    queue.extend(left)
    return taken
