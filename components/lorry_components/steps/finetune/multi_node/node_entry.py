"""The process of each node of a training.

``python -m lorry_components.steps.finetune.multi_node.node_entry STORE KEY`` starts it.
Kubeflow Trainer tells a node its number and where all meet, in the variables that torchrun reads. A node that
fails for a reason that need not come back (the others are gone, the store is away) ends with an error, and
Kubernetes starts it again: it goes on from the last checkpoint in the store. One that fails for a reason
that will come back says so in the store, and the step that waits ends the job.
"""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lorry_components.process_setup import conceal_secrets
from lorry_components.steps.finetune.mlflow_log import MlflowLog
from lorry_components.steps.finetune.multi_node.node_channel import NodeChannel, NodeWork
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.runtime.step_context import StepContext
from lorry_components.training.checkpoints.stored_checkpoints import CheckpointPlace
from lorry_components.training.distributed.process_group import Node, finetune_in_processes
from lorry_registry.errors import LorryError, LostProcessError, StoreError, TrainingError, UsageError
from lorry_registry.settings import Settings
from lorry_registry.stores import open_store

_LOGGER = logging.getLogger(__name__)
# A step that waits says so each minute. Its pod may be replaced meanwhile, which takes its time.
ABANDONED_SECONDS = 1800.0
_LOOK_SECONDS = 60.0
_TOLD_SECONDS = 10.0


@dataclass(slots=True)
class Waiting:
    """Looks now and then whether someone still waits for the result: nodes with GPUs are dear.

    Attributes:
        channel: Where the step says so.
        abandoned_seconds: After how long without a sign no one does.
        look_seconds: From one look to the next.
    """

    channel: NodeChannel
    abandoned_seconds: float = ABANDONED_SECONDS
    look_seconds: float = _LOOK_SECONDS
    _beat: bytes = b""
    _looked_at: float = 0.0
    _changed_at: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Look, unless that was done a moment ago.

        Raises:
            TrainingError: No one has waited for a long time: the run was terminated, or its step is gone.
        """
        now = time.monotonic()
        if now - self._looked_at < self.look_seconds:
            return
        self._looked_at = now
        try:
            beat = self.channel.read_beat()
        except StoreError as error:
            _LOGGER.warning("whether someone waits is not known: %s", error)
            return
        if beat != self._beat:
            self._beat, self._changed_at = beat, now
        elif now - self._changed_at >= self.abandoned_seconds:
            raise TrainingError(
                f"no one has waited for this training for {self.abandoned_seconds / 60:.0f} minutes",
                where="finetune",
                todo="start the run again: it goes on from the last checkpoint",
            )


def main(store: str, key: str) -> int:
    """Train on this node; return the exit code of its container."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    secrets = conceal_secrets(os.environ)
    channel = NodeChannel(open_store(store, Settings.load(os.environ, Path.cwd()).s3), key)
    try:
        if channel.has_result:
            _LOGGER.info("the training has ended already")
            return 0
        failure = channel.find_failure()
        if failure is not None:
            _LOGGER.error("another node has failed: %s", failure)
            return failure.exit_code
        _train(channel, channel.read_work(), store, read_node(os.environ))
    except (LostProcessError, StoreError) as error:
        _LOGGER.error("%s\nthis node is started again, and goes on from the last checkpoint", error)  # noqa: TRY400
        return error.exit_code
    except LorryError as error:
        _LOGGER.error("%s", error)  # noqa: TRY400
        channel.fail(error, secrets)
        return error.exit_code
    return 0


def read_node(environment: Mapping[str, str]) -> Node:
    """Return which node this is.

    Raises:
        UsageError: The environment does not say so.
    """
    try:
        return Node(
            number=int(environment["PET_NODE_RANK"]),
            count=int(environment["PET_NNODES"]),
            address=environment["PET_MASTER_ADDR"],
            port=int(environment["PET_MASTER_PORT"]),
        )
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"it is not known which node this is: {error}",
            where="PET_NODE_RANK",
            todo="take a runtime of Kubeflow Trainer for torch, such as torch-distributed",
        ) from error


def _train(channel: NodeChannel, work: NodeWork, store: str, node: Node) -> None:
    entry = StepContext.open(
        "finetune", task=work.task, run=work.run, store=store, tracking_uri=work.tracking_uri
    )
    place = CheckpointPlace(work.checkpoints, work.checkpoints_key, entry.settings.s3, work.notes)
    waiting, progress = Waiting(channel), _Told()

    def show(done: int, total: int, note: str = "") -> None:
        progress.tell(done, total, note)
        waiting.check()

    # A disk of its own for each attempt: what the former one left is not what the other nodes go on from.
    with tempfile.TemporaryDirectory() as scratch:
        data, target, checkpoints = (Path(scratch) / name for name in ("data", "candidate", "checkpoints"))
        channel.fetch_data(work, data)
        place.open().restore(checkpoints)
        _LOGGER.info("node %d of %d is ready", node.number, node.count)
        log = MlflowLog(entry.index, work.mlflow_run)
        finetune_in_processes(
            finetune,
            count_processes(entry.spec.resources.count),
            entry.task,
            data,
            target,
            checkpoints=checkpoints,
            progress=show,
            log_metrics=log,
            place=place,
            node=node,
        )
        if node.number == 0:
            channel.keep_result(target)


def count_processes(wanted: int) -> int:
    """Return how many processes train on this node: one for each accelerator that it was to have.

    Raises:
        TrainingError: It has fewer, so that the nodes would wait for processes that do not come.
    """
    if wanted == 0:
        return 1
    import torch

    found = torch.cuda.device_count()
    if found < wanted:
        raise TrainingError(
            f"this node has {found} of the {wanted} accelerators that it was to have",
            where="resources.count",
            todo="see that nodes offer them, and that the image's torch was built for them",
        )
    return wanted


@dataclass(slots=True)
class _Told:
    """Writes how far a training is, but not after each step."""

    _at: float = 0.0

    def tell(self, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if now - self._at >= _TOLD_SECONDS or done == total:
            self._at = now
            _LOGGER.info("step %d of %d%s", done, total, f": {note}" if note else "")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
