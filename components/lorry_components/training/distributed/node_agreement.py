"""The agreement of a training's machines: the step to go on from, and all random states.

Each machine has its own disk. Trainer writes the random state of each process on the machine of that process,
but only the first one's disk goes into the store.
"""

from pathlib import Path
from typing import Any

from lorry_components.training.checkpoints.checkpoint_files import find_checkpoint, read_step
from lorry_components.training.distributed.process_group import ProcessGroup
from lorry_registry.errors import LostProcessError
from lorry_registry.files.atomic_write import write_whole

_RANDOM_STATE = "rng_state_{}.pth"


def share_random_states(checkpoint: Path, *, rank: int, count: int, writes: bool) -> None:
    """Give the random states of all processes to every machine.

    Args:
        checkpoint: The checkpoint that is being written, to which each process has added its own state.
        rank: The number of this process.
        count: How many processes there are.
        writes: Whether this process is the one that writes on its machine.
    """
    own = (checkpoint / _RANDOM_STATE.format(rank)).read_bytes()
    for number, content in enumerate(_gather(own, count)):
        path = checkpoint / _RANDOM_STATE.format(number)
        if writes and not path.exists():
            write_whole(path, content)


def check_same_start(checkpoints: Path, group: ProcessGroup) -> None:
    """Refuse to start where one machine has fetched another checkpoint than the first.

    Raises:
        LostProcessError: It has. Nothing is uploaded while none of them trains, so the next attempt agrees.
    """
    if group.nodes == 1:
        return
    found = find_checkpoint(checkpoints)
    steps = _gather(read_step(found) if found else 0, group.count)
    if len(set(steps)) > 1:
        raise LostProcessError(
            f"the nodes would go on from different steps: {', '.join(map(str, steps))}",
            where=f"process {group.rank}",
            todo="wait for the next attempt, in which they agree",
        )


def _gather(own: Any, count: int) -> list[Any]:
    from torch import distributed

    gathered: list[Any] = [None] * count
    distributed.all_gather_object(gathered, own)
    return gathered
