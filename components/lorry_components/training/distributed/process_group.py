"""One training in several processes, one for each GPU of each machine.

Torch and accelerate learn of the other processes from the environment, which is set here as torchrun sets
it. Our own code does not read it: it is given a :class:`ProcessGroup`. What the processes of a machine report
comes back through a queue, so that MLflow and the display have one client. With several machines this runs
on each of them, and each is given its number as a :class:`Node`.
"""

import contextlib
import multiprocessing
import os
import queue
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.progress import Progress
from lorry_components.training.checkpoints.stored_checkpoints import CheckpointPlace
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.errors import LorryError, LostProcessError

if TYPE_CHECKING:
    from lorry_components.training.callbacks import LogMetrics

_POLL_SECONDS = 1.0
_GRACE_SECONDS = 10.0
Finetune = Callable[..., TrainingSummary]


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes of a training, as one of them sees them.

    Attributes:
        rank: The number of this process, counted from 0.
        count: How many there are.
        local_rank: The number of this process on its machine.
        nodes: How many machines they are on, each with as many of them.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    nodes: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0


ALONE = ProcessGroup()
"""A training in one process."""


@dataclass(frozen=True, slots=True)
class Node:
    """One of the machines of a training.

    Attributes:
        number: Its number, counted from 0.
        count: How many there are.
        address: The address of the first of them, at which all meet.
        port: The port there; None: one that is free on this machine, which is then the only one.
    """

    number: int = 0
    count: int = 1
    address: str = "127.0.0.1"
    port: int | None = None


ONLY_NODE = Node()
"""A training on this machine alone."""


def separate_random_numbers(seed: int, group: ProcessGroup) -> None:
    """Let each process but the first draw random numbers of its own: other noise, and other dropout.

    Weights start alike in all processes, so all are seeded alike before. The first goes on as it would alone.
    """
    import numpy as np
    import torch

    if not group.is_first:
        # Not the sum, or this process would draw what the first of a training with the next seed draws. Of
        # 64 bits torch's generator on processors looks at 32.
        torch.manual_seed(int(np.random.SeedSequence([seed, group.rank]).generate_state(1)[0]))


def finetune_in_processes(
    finetune: Finetune,
    count: int,
    task: object,
    data: Path,
    target: Path,
    *,
    checkpoints: Path,
    progress: Progress,
    log_metrics: "LogMetrics",
    place: CheckpointPlace | None = None,
    node: Node = ONLY_NODE,
) -> TrainingSummary:
    """Train an adapter in several processes.

    Args:
        finetune: What each of them runs; it is called with its place in the group as ``group``.
        count: How many processes on this machine.
        task: The task as ``finetune`` takes it.
        data: The folder that ``prepare_data`` wrote.
        target: Where the first of them writes.
        checkpoints: As for one process.
        progress: Called with the steps that are done and their total.
        log_metrics: Called with losses and validation metrics.
        place: Where the first of them uploads each checkpoint to; None: nowhere.
        node: Which machine of the training this is.

    Raises:
        LorryError: What one of them raised.
        LostProcessError: One of them was ended from outside, or lost the others.
    """
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    meeting = (node.address, node.port or _find_port())
    arguments = (finetune, meeting, messages, task, data, target, checkpoints, place)
    groups = [
        ProcessGroup(node.number * count + rank, node.count * count, rank, node.count)
        for rank in range(count)
    ]
    children = [context.Process(target=_run, args=(group, *arguments)) for group in groups]
    for child in children:
        child.start()
    try:
        return _listen(children, messages, progress, log_metrics)
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.join(_GRACE_SECONDS)
            if child.is_alive():
                child.kill()


def _listen(
    children: "list[Any]", messages: Any, progress: Progress, log_metrics: "LogMetrics"
) -> TrainingSummary:
    is_over = False
    while True:
        try:
            kind, *content = messages.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            _check_exits(children)
            if is_over:
                raise LostProcessError(
                    f"process 0 of {len(children)} ended with code 0, but without a result",
                    where="finetune",
                    todo="see the log above it: some library may have ended the process",
                ) from None
            # Its last message may still be on its way, so it is listened for once more.
            is_over = children[0].exitcode == 0
            continue
        if kind == "progress":
            progress(*content)
        elif kind == "metrics":
            log_metrics(*content)
        elif kind == "failed":
            raise content[0]
        elif kind == "done":
            summary: TrainingSummary = content[0]
            for child in children:
                child.join(_GRACE_SECONDS)
            return summary


def _check_exits(children: "list[Any]") -> None:
    for number, child in enumerate(children):
        if child.exitcode not in (None, 0):
            raise LostProcessError(
                f"process {number} of {len(children)} ended with code {child.exitcode}",
                where="finetune",
                todo="see the log above it; a process that was killed often lacked memory",
            )


def _run(
    group: ProcessGroup,
    finetune: Finetune,
    meeting: tuple[str, int],
    messages: Any,
    task: object,
    data: Path,
    target: Path,
    checkpoints: Path,
    place: CheckpointPlace | None,
) -> None:
    """Train in a process of its own."""
    from lorry_components.process_setup import quiet_libraries

    here = group.count // group.nodes
    # For torch and accelerate, which take no arguments for it.
    os.environ.update(
        {
            "RANK": str(group.rank),
            "LOCAL_RANK": str(group.local_rank),
            "WORLD_SIZE": str(group.count),
            "LOCAL_WORLD_SIZE": str(here),
            "MASTER_ADDR": meeting[0],
            "MASTER_PORT": str(meeting[1]),
        }
    )
    quiet_libraries()
    _choose_device(group.local_rank)
    _divide_threads(here)
    try:
        summary = finetune(
            task,
            data,
            target,
            checkpoints=checkpoints,
            progress=lambda done, total, note="": messages.put(("progress", done, total, note)),
            log_metrics=lambda metrics, step: messages.put(("metrics", dict(metrics), step)),
            place=place,
            group=group,
        )
    except LorryError as error:
        messages.put(("failed", error))
    except Exception as error:
        where = f"process {group.rank}"
        messages.put(("failed", LostProcessError(f"{type(error).__name__}: {error}", where=where)))
        raise
    else:
        if group.local_rank == 0:
            messages.put(("done", summary))
    finally:
        _leave_group()


def _choose_device(rank: int) -> None:
    """Make loading go to this process's own GPU: bitsandbytes packs weights where they are loaded."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(rank)


def _divide_threads(processes: int) -> None:
    """Leave each process of this machine its part of the threads that one alone would compute with."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // processes))


def _leave_group() -> None:
    from torch import distributed

    if distributed.is_initialized():
        with contextlib.suppress(RuntimeError):
            distributed.destroy_process_group()


def _find_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
