"""A task's ``train`` section, as transformers' ``TrainingArguments``."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from lorry_components.training.setup.length import DEFAULT_EPOCHS, choose_length
from lorry_components.training.setup.model_setup import Setup
from lorry_components.training.setup.optimizers import name_optimizer
from lorry_registry.tasks.task_spec import TaskSpec

if TYPE_CHECKING:
    from transformers import TrainingArguments

_CHECKPOINTS_PER_RUN = 10
_LOGS_PER_RUN = 50
# None of the weights in shares is trained, so there is no reduction of their gradients to put off while a
# step is accumulated. Trainer would put it off in a way that works only for models that transformers divided.
_ACCUMULATION_IN_SHARES = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}


def build_arguments(spec: TaskSpec, setup: Setup, rows: int, checkpoints: Path) -> "TrainingArguments":
    """Return the arguments of a task's training.

    Args:
        spec: The task.
        setup: What was set up for it.
        rows: The number of encoded training rows.
        checkpoints: Where checkpoints are written.
    """
    from transformers import TrainingArguments

    class Arguments(TrainingArguments):
        # Frozen weights that stay in the host's memory must not be moved.
        place_model_on_device = False if spec.train.offload else None

        @property
        def n_gpu(self) -> int:
            # A process uses one of a machine's GPUs: Trainer would multiply the batch size by their number.
            return min(1, int(super().n_gpu))

    train = spec.train
    length = choose_length(train, rows, processes=setup.group.count)
    form = setup.task_type.training_form
    primary = spec.evaluate.primary or setup.task_type.primary
    return Arguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=length.batch_size // setup.group.count,
        # What training holds of a batch is more than its evaluation does.
        per_device_eval_batch_size=2 * train.batch_size // setup.group.count,
        gradient_accumulation_steps=train.gradient_accumulation,
        num_train_epochs=length.epochs or DEFAULT_EPOCHS,
        max_steps=length.steps if length.epochs is None else -1,
        learning_rate=setup.learning_rate,
        lr_scheduler_type=train.schedule if train.schedule != "constant" else "constant_with_warmup",
        warmup_steps=train.warmup,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optim=name_optimizer(train.optimizer, setup.hardware.device),
        seed=train.seed,
        bf16=setup.precision.name == "bf16",
        fp16=setup.precision.name == "fp16",
        use_cpu=setup.hardware.device == "cpu",
        eval_strategy="epoch",
        # Where the best epoch is kept, each epoch needs a checkpoint.
        save_strategy="epoch" if train.early_stopping else "steps",
        save_steps=max(1, math.ceil(length.steps / _CHECKPOINTS_PER_RUN)),
        save_total_limit=2,
        # A node that goes on from a checkpoint reads its own copy, as it does the best epoch's at the end.
        save_on_each_node=setup.group.nodes > 1,
        metric_for_best_model=primary if form.scores_outputs else "loss",
        greater_is_better=form.scores_outputs,
        # Where only the loss is used, the outputs are not collected: they would be large.
        prediction_loss_only=not form.scores_outputs,
        activation_checkpointing=train.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if train.gradient_checkpointing else None,
        logging_steps=max(1, length.steps // _LOGS_PER_RUN),
        # A loss that is not a number must be seen, not replaced by a mean.
        logging_nan_inf_filter=False,
        # Otherwise early stopping would lose its patience counter.
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        label_names=list(form.label_names),
        dataloader_pin_memory=setup.hardware.device == "cuda",
        ddp_find_unused_parameters=False,
        accelerator_config=_ACCUMULATION_IN_SHARES if train.offload else None,
        disable_tqdm=True,
        report_to="none",
    )
