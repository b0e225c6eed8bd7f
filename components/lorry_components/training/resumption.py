"""A training that goes on from its last checkpoint, and ends with the weights of one that never stopped."""

import math
import pickle
import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_components.training.checkpoints.checkpoint_files import find_checkpoint, read_step
from lorry_registry.errors import StoreError, TrainingError

if TYPE_CHECKING:
    from lorry_components.training.trainer import AdapterTrainer

# A disk with less than this left, in bytes, counts as full.
_LEAST_ROOM = 1 << 20
START = "start"
"""The folder, beside the checkpoints, of the weights that training began with."""


@dataclass(frozen=True, slots=True)
class Course:
    """How a training went.

    Attributes:
        steps: Optimizer steps in all.
        resumed_from: The step that this process went on from; 0: it trained from the start.
        seconds: Wall time of the training loop in this process, validation included.
        loss: The last mean training loss that was logged; NaN if none was.
        batch_size: Rows in one forward pass, those of all processes together; None: it had no steps.
        epochs: Passes over the training rows; None: it had no steps.
    """

    steps: int
    resumed_from: int
    seconds: float
    loss: float
    batch_size: int | None = None
    epochs: float | None = None

    def count_rows(self, gradient_accumulation: int) -> int:
        """Return how many rows this process trained on, each as often as it was read."""
        return (self.steps - self.resumed_from) * (self.batch_size or 0) * gradient_accumulation


def train_to_end(
    trainer: "AdapterTrainer",
    checkpoints: Path,
    *,
    keeps_prefix: bool,
    keeps_best: bool,
    keeps_start: bool = False,
) -> Course:
    """Train from the newest checkpoint, or from the start where there is none, to the end.

    Args:
        trainer: Ready to train.
        checkpoints: The folder of this very training.
        keeps_prefix: Whether the outputs of the frozen layers are computed once and kept.
        keeps_best: Whether the weights in the end are those of the best epoch, and not of the last one.
        keeps_start: Whether the weights of the beginning are written beside the checkpoints, and evaluated.

    Raises:
        StoreError: The disk is full.
        TrainingError: There are no frozen layers whose outputs could be kept, or a file of the checkpoint
            holds something else than numbers.
    """
    from safetensors import SafetensorError

    checkpoint = find_checkpoint(checkpoints)
    started = time.perf_counter()
    try:
        if keeps_start:
            trainer.remember_start(checkpoints / START, is_evaluated=checkpoint is None)
        if checkpoint is None or not trainer.take_over(checkpoint):
            with trainer.cached_prefix(checkpoints) if keeps_prefix else nullcontext():
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if keeps_best:
            trainer.load_best()
    except pickle.UnpicklingError as error:
        # Trainer reads torch's own files with weights_only, which refuses anything that could run code.
        raise TrainingError(
            "the checkpoint cannot be gone on from: a file of it holds something else than numbers",
            where=str(checkpoint),
            todo="find out who wrote it and remove it, or train from the start with --force",
        ) from error
    except (RuntimeError, SafetensorError) as error:
        # The libraries that write checkpoints do not raise OSError on a full disk: free space tells.
        if shutil.disk_usage(checkpoints).free > _LEAST_ROOM:
            raise
        raise StoreError(
            "no checkpoint can be written: the disk has no space left",
            where=str(checkpoints),
            todo="make room and run again: training goes on from the last checkpoint, if there is one",
        ) from error
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Course(
        steps=trainer.state.global_step,
        resumed_from=read_step(checkpoint) if checkpoint else 0,
        seconds=time.perf_counter() - started,
        loss=float(losses[-1]) if losses else math.nan,
        batch_size=trainer.args.train_batch_size * trainer.args.world_size,
        epochs=trainer.state.epoch,
    )
