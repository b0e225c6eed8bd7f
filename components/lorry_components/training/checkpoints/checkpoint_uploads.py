"""Uploads checkpoints while training goes on.

A store that is away for a while must not end a training, and a slow one should hold it up as little as
possible: each checkpoint goes up in a thread, and is waited for only when the next one is about to be
written, since that may remove the one before.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorry_components.training.checkpoints.checkpoint_files import name_checkpoint
from lorry_components.training.checkpoints.stored_checkpoints import StoredCheckpoints, warn_of_failure


class CheckpointUploads(TrainerCallback):
    """Uploads each checkpoint that Trainer writes; a context, at whose end the last upload has ended.

    Args:
        stored: Where they go.
        keeps_best: Whether the weights in the end are those of the best epoch, whose checkpoint is then kept.
    """

    def __init__(self, stored: StoredCheckpoints, *, keeps_best: bool) -> None:
        self._stored = stored
        self._keeps_best = keeps_best
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-upload")
        self._upload: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        # After an error, too: a training that goes on elsewhere then loses least.
        self._finish_upload()
        self._executor.shutdown()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Wait for the former upload before a checkpoint is written."""
        if control.should_save:
            self._finish_upload()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Wait for the former upload before a checkpoint is written."""
        if control.should_save:
            self._finish_upload()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Upload the checkpoint that was just written."""
        checkpoint = name_checkpoint(Path(str(args.output_dir)), state.global_step)
        best = state.best_global_step if self._keeps_best else None
        self._upload = self._executor.submit(lambda: self._stored.keep(checkpoint, best=best or None))

    def _finish_upload(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            warn_of_failure(
                upload.result, "the last checkpoint is not in the store, and the next one will be"
            )
