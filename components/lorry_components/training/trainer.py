"""transformers' Trainer, made to save exactly what is trained and to repeat itself when it is resumed.

Trainer's public methods are overridden where transformers invites that, and two private ones where nothing
public would do; each says why. A minor version of transformers may move private methods, which is why
pyproject.toml admits the minor version that was tested and no other. What we rely on is written down, and
checked, in ``tests/unit/components/training/test_trainer_contract.py``.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerState

from lorry_components.methods import Method
from lorry_components.task_types.base import IGNORED, batch_by_length
from lorry_components.task_types.training_form import TrainingForm
from lorry_components.training.callbacks import MethodCallback
from lorry_components.training.checkpoints.checkpoint_files import (
    STATE_NAME,
    load_trained,
    name_checkpoint,
    save_trained,
)
from lorry_components.training.distributed.node_agreement import share_random_states
from lorry_components.training.kernels.activation_cache import (
    NO_INPUTS,
    ROW,
    STATES,
    FrozenPrefix,
    PrefixCollator,
    StateFile,
)
from lorry_components.training.kernels.sampler import LengthGroupedSampler
from lorry_components.training.kernels.supervised_logits import compute_next_token_loss

# What heads return beside what they are scored by.
_NOT_SCORED = ("past_key_values", "encoder_last_hidden_state")


class EncodedExamples(Dataset[dict[str, Any]]):
    """Encoded rows, each with its labels."""

    def __init__(self, encoded: Sequence[dict[str, Any]]) -> None:
        self.encoded = encoded
        # Images are all of one size.
        self.lengths = [len(row.get("input_ids", ())) for row in encoded]

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.encoded[index]

    def number(self, start: int) -> "EncodedExamples":
        """Return the same rows, each with its number, counted from ``start``."""
        return EncodedExamples([{**row, ROW: start + index} for index, row in enumerate(self.encoded)])


class AdapterTrainer(Trainer):
    """A Trainer whose checkpoints hold every trained parameter, the method's state, and nothing of the base.

    Args:
        method: What made the model trainable: it may act after each step.
        scale_learning_rate: Returns the factor on the learning rate of a parameter, by its name.
        form: How the examples of the task type are trained on. Where a loss is a mean over supervised tokens,
            accumulated batches count by how many they have, and give the gradient of one large batch.
        arguments: Trainer's own.
    """

    def __init__(
        self,
        *,
        method: Method,
        scale_learning_rate: Callable[[str], float],
        form: TrainingForm,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._predicts_next = form.predicts_next
        # This asks Trainer to count the supervised tokens of all accumulated batches, and not to divide by
        # their number. A task type with one head on a text takes the mean of each batch instead.
        self.model_accepts_loss_kwargs = form.averages_tokens
        self._method = method
        self._scale_learning_rate = scale_learning_rate
        self.prefix: FrozenPrefix | None = None
        self.add_callback(MethodCallback(method))

    # Steps

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return batches of like length, in an order that depends on the seed and the epoch alone."""
        dataset: Any = self.train_dataset
        size = self.args.train_batch_size
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=size,
            # The rows of a step are of like length in all processes together, and the same ones however many
            # processes there are.
            sampler=LengthGroupedSampler(
                dataset.lengths, size * self.args.world_size, self.args.seed, self._read_epoch
            ),
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def _read_epoch(self) -> int:
        return int((self.state.epoch or 0) + 1e-9)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create the optimizer, with a group of its own for each factor on the learning rate."""
        is_new = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if is_new:
            target: Any = self.model if model is None else model
            _scale_learning_rates(optimizer, target, self._scale_learning_rate)
        return optimizer

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute the loss, from the outputs of the frozen layers where those are kept.

        A mean over the tokens of a batch is weighted by the share that they have of all tokens of the step.
        Trainer's own would pass the number of those to the model, and T5 and BART ignore it.
        """
        states = inputs.pop(STATES, None)
        with contextlib.ExitStack() as stack:
            if states is not None and self.prefix is not None:
                stack.enter_context(self.prefix.replaying(states, inputs["attention_mask"]))
            if self._predicts_next:
                loss, outputs = compute_next_token_loss(model, inputs)
            elif num_items_in_batch is None:
                return super().compute_loss(model, inputs, return_outputs)
            else:
                outputs = model(**inputs)
                loss = outputs.loss
        if num_items_in_batch is None:
            return (loss, outputs) if return_outputs else loss
        loss = loss * (self._count_supervised(inputs["labels"]) / num_items_in_batch)
        if self.args.average_tokens_across_devices:
            # Trainer counts tokens over all processes, whose gradients are then averaged.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    @contextlib.contextmanager
    def cached_prefix(self, folder: Path) -> Iterator[None]:
        """Compute the frozen layers once for all rows, and train on their outputs.

        Args:
            folder: The place of the outputs during the training.

        Raises:
            StoreError: The disk is full.
            TrainingError: There is nothing to keep.
        """
        before = self.train_dataset, self.eval_dataset, self.data_collator
        train: Any = self.train_dataset
        held_out: Any = self.eval_dataset
        with tempfile.TemporaryDirectory(dir=folder, prefix="frozen-") as scratch:
            prefix, states = self._compute_prefix([train, held_out], Path(scratch) / "states")
            self.train_dataset = train.number(0)
            self.eval_dataset = held_out.number(len(train))
            self.data_collator = PrefixCollator(self.data_collator, states)
            self.prefix = prefix
            try:
                with prefix.attached():
                    yield
            finally:
                self.prefix = None
                self.train_dataset, self.eval_dataset, self.data_collator = before

    def _compute_prefix(self, parts: Sequence[EncodedExamples], path: Path) -> tuple[FrozenPrefix, StateFile]:
        rows = [row for part in parts for row in part.encoded]
        lengths = [length for part in parts for length in part.lengths]
        collate: Any = self.data_collator

        def build_batch(numbers: Sequence[int]) -> Any:
            inputs = collate([rows[number] for number in numbers])
            return {name: inputs[name].to(self.args.device) for name in inputs if name not in NO_INPUTS}

        model: Any = self.model
        batches = batch_by_length(lengths, self.args.eval_batch_size)
        with self.accelerator.autocast():
            prefix = FrozenPrefix(model, build_batch(batches[0][:2]))
            states = StateFile(path, lengths)
            for number, row in prefix.compute(batches, build_batch, lengths):
                states.write(number, row.cpu())
        return prefix, states

    def _count_supervised(self, labels: torch.Tensor) -> torch.Tensor:
        """Return how many labels count in a batch's loss. Nothing predicts the first of a sequence."""
        return (labels[..., 1:] if self._predicts_next else labels).ne(IGNORED).sum()

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluate without drawing from the random state of the training, as data loaders do.

        The checkpoint of an epoch's end is written before the epoch is evaluated, and a training that goes on
        from it does not evaluate again.
        """
        ignored = [*_NOT_SCORED, *(ignore_keys or ())]
        with torch.random.fork_rng(devices=[]):
            scores: dict[str, float] = super().evaluate(eval_dataset, ignored, metric_key_prefix)
        return scores

    def own_placement(self) -> None:
        """Leave the model where it is: its frozen weights are in shares.

        Trainer then treats the model as one that transformers loaded in shares: it wraps nothing, and
        averages the gradients of the parameters that every process holds.
        """
        self.is_distributed_loading_by_transformers = True

    # Checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write what is trained, in the one process that writes."""
        if self.args.should_save:
            save_trained(self._bare, self._method, Path(output_dir or str(self.args.output_dir)))

    def load_best(self) -> None:
        """Load the weights that validation liked best, if any were saved.

        Trainer's own looks for files of whole models or of PEFT's adapters, and at the path in its state,
        which is no longer right where the folder was moved, or is mounted elsewhere.
        """
        if self.state.best_global_step:
            best = name_checkpoint(Path(str(self.args.output_dir)), self.state.best_global_step)
            load_trained(self._bare, self._method, best)

    def remember_start(self, folder: Path, *, is_evaluated: bool) -> None:
        """Write the weights that training begins with, before it does.

        Args:
            folder: Where to; they are the same each time that the training is started.
            is_evaluated: Whether they are evaluated as well. A training that goes on knows it from its
                checkpoint how good they are.
        """
        self.save_model(str(folder))
        self.args.eval_on_start = is_evaluated

    def take_over(self, checkpoint: Path) -> bool:
        """Load the result of a training that had ended when it was killed; return whether it had.

        Trainer would make a further step or epoch from its last checkpoint.
        """
        state = TrainerState.load_from_json(str(checkpoint / STATE_NAME))
        if not state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]:
            return False
        self.state = state
        load_trained(self._bare, self._method, checkpoint)
        return True

    # Private to Trainer. Its own knows the files of whole models and of PEFT's adapters only, and refuses to
    # resume from a folder without them; no hook is called before it.
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_trained(model or self._bare, self._method, Path(resume_from_checkpoint))

    # Private to Trainer. What makes a checkpoint complete is written right after this, by one process: the
    # random states of the others must be there by then, and no hook is called in between.
    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()
        if self.args.save_on_each_node:
            share_random_states(
                Path(output_dir),
                rank=self.args.process_index,
                count=self.args.world_size,
                writes=self.args.should_save,
            )

    @property
    def _bare(self) -> nn.Module:
        """The model in no wrapper of several processes."""
        model: Any = self.model
        bare: nn.Module = model
        return bare


def _scale_learning_rates(
    optimizer: torch.optim.Optimizer, model: nn.Module, scale: Callable[[str], float]
) -> None:
    factors = {parameter: scale(name) for name, parameter in model.named_parameters()}
    for group in list(optimizer.param_groups):
        by_factor: dict[float, list[Any]] = {}
        for parameter in group["params"]:
            by_factor.setdefault(factors[parameter], []).append(parameter)
        parts = [{"params": by_factor[factor], "lr": group["lr"] * factor} for factor in sorted(by_factor)]
        shared = {key: value for key, value in group.items() if key not in ("params", "lr")}
        if parts:
            group.update(parts[0])
        for part in parts[1:]:
            optimizer.add_param_group({**shared, **part})
