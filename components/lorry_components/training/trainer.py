"""transformers' Trainer, told to save exactly what is trained and to repeat itself when resumed."""

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import distributed, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorry_components.methods import Method
from lorry_components.progress import Progress
from lorry_components.task_types.base import IGNORED
from lorry_components.task_types.training_form import TrainingForm
from lorry_components.training.activation_cache import ROW, STATES, FrozenPrefix
from lorry_components.training.sampler import LengthGroupedSampler
from lorry_components.training.supervised_logits import compute_next_token_loss

_TRAINED_NAME = "trained.safetensors"
_METHOD_NAME = "method.safetensors"
_STATE_NAME = "trainer_state.json"
# What heads give beside what they are scored by.
_NOT_SCORED = ("past_key_values", "encoder_last_hidden_state")
LogMetrics = Callable[[Mapping[str, float], int], None]


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

    PEFT's own checkpoints are made for inference: those of P-tuning drop the encoder, so that training could
    not go on from them.

    Args:
        method: What made the model trainable: it may act after each step, and learn some parameters faster.
        form: How the examples of the task type are trained on. Where a loss is a mean over supervised tokens,
            accumulated batches count by how many they have, and give the gradient of one large batch.
        arguments: Trainer's own.
    """

    def __init__(self, *, method: Method, form: TrainingForm, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._predicts_next = form.predicts_next
        # This asks Trainer to count the supervised tokens of all accumulated batches, and not to divide by
        # their number. A kind with one head on a text takes the mean of each batch instead.
        self.model_accepts_loss_kwargs = form.averages_tokens
        self._method = method
        self.prefix: FrozenPrefix | None = None
        self.add_callback(_MethodCallback(method))

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create the optimiser, with a group of its own for each factor on the learning rate."""
        is_new = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if is_new:
            target: Any = self.model if model is None else model
            _scale_learning_rates(optimizer, target, self._method)
        return optimizer

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute the loss, from the outputs of the frozen layers where those are kept.

        A mean over tokens is weighed by the share that these tokens have of all of the step. Trainer would
        tell the model their number, and T5 and BART do not listen.
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
        loss = loss * (count_supervised(inputs["labels"]) / num_items_in_batch)
        if self.args.average_tokens_across_devices:
            # Tokens are counted over all processes, whose gradients are then averaged.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | None:
        if not self.model_accepts_loss_kwargs or not batch_samples:
            return None
        counted = torch.stack([count_supervised(batch["labels"]) for batch in batch_samples]).sum().to(device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            counted = self.accelerator.gather(counted).sum()
        return counted

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        dataset: Any = train_dataset if train_dataset is not None else self.train_dataset
        return LengthGroupedSampler(
            # A step's rows are of like length in all processes together: the same, however many there are.
            dataset.lengths,
            self.args.train_batch_size * self.args.world_size,
            self.args.seed,
            self._read_epoch,
        )

    def _read_epoch(self) -> int:
        return int((self.state.epoch or 0) + 1e-9)

    def own_placement(self) -> None:
        """Let the model be where it is: its frozen weights are in shares.

        This is Trainer's way with models that it loaded in shares: it wraps nothing, and averages the
        gradients of what is in one piece.
        """
        self.is_distributed_loading_by_transformers = True

    def _sync_replicated_trainable_parameters(self, model: nn.Module) -> None:
        # Trainer's own asks for a mean, which gloo does not know.
        if not distributed.is_initialized() or distributed.get_world_size() == 1:
            return

        def average(parameter: nn.Parameter) -> None:
            if self.accelerator.sync_gradients and parameter.grad is not None:
                distributed.all_reduce(parameter.grad)
                parameter.grad /= distributed.get_world_size()

        trained: list[Any] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in trained:
            distributed.broadcast(parameter.data, src=0)
            parameter.register_post_accumulate_grad_hook(average)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir or ".")
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_list_trained(self.model), folder / _TRAINED_NAME)
        # Absent for most methods: safetensors would write a file without a tensor.
        target: Any = self.model
        if state := self._method.export_state(target):
            save_file(state, folder / _METHOD_NAME)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # What makes a checkpoint complete is written next, by one process: the others' states must be there.
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        target: Any = model or self.model
        trained = dict(target.named_parameters())
        with torch.no_grad():
            for name, tensor in load_file(Path(resume_from_checkpoint) / _TRAINED_NAME).items():
                trained[name].copy_(tensor)
        path = Path(resume_from_checkpoint) / _METHOD_NAME
        if path.exists():
            self._method.import_state(target, load_file(path))

    def _load_best_model(self) -> None:
        # Not by the path in the state: the folder may have been moved, or be mounted elsewhere.
        best = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.best_global_step}"
        self._load_from_checkpoint(str(best))

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluate without drawing from the random state of the training, as data loaders do.

        A checkpoint is written before the evaluation at the end of an epoch, and who goes on from it does not
        evaluate again.
        """
        ignored = [*_NOT_SCORED, *(ignore_keys or ())]
        with torch.random.fork_rng(devices=[]):
            scores: dict[str, float] = super().evaluate(eval_dataset, ignored, metric_key_prefix)
        return scores

    def take_over(self, checkpoint: Path) -> bool:
        """Load the result of a training that had ended when it was killed; return whether it had.

        Trainer would make a further step or epoch from its last checkpoint.
        """
        state = TrainerState.load_from_json(str(checkpoint / _STATE_NAME))
        if not state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]:
            return False
        self.state = state
        if self.args.load_best_model_at_end and state.best_global_step:
            self._load_best_model()
        else:
            self._load_from_checkpoint(str(checkpoint))
        return True


class _MethodCallback(TrainerCallback):
    """Tells the method where training is."""

    def __init__(self, method: Method) -> None:
        self._method = method

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Tell how many steps there will be."""
        self._method.start_training(model, state.max_steps)

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Tell that the weights were updated; their gradients are still there."""
        self._method.finish_step(model, state.global_step + 1)


class ProgressCallback(TrainerCallback):
    """Tells how many steps are done, and hands losses and validation metrics on."""

    def __init__(self, progress: Progress, log_metrics: LogMetrics) -> None:
        self._progress = progress
        self._log_metrics = log_metrics

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell where training starts, or goes on."""
        if state.is_world_process_zero:
            self._progress(state.global_step, state.max_steps)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell that a step is done."""
        if state.is_world_process_zero:
            self._progress(state.global_step, state.max_steps)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Hand metrics on, under names that group well in MLflow."""
        named = {_rename_metric(name): value for name, value in (logs or {}).items()}
        if not math.isfinite(named.get("train/loss", 0.0)):
            # No later step can mend it.
            control.should_training_stop = True
        if state.is_world_process_zero:
            self._log_metrics({name: value for name, value in named.items() if name}, state.global_step)


def count_supervised(labels: torch.Tensor) -> torch.Tensor:
    """Return how many labels count in the loss: all that are not -100."""
    return labels.ne(IGNORED).sum()


def find_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint below a folder.

    Trainer writes its state last, so that a checkpoint which a kill cut short has none.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for checkpoint in reversed(found):
        try:
            json.loads((checkpoint / _STATE_NAME).read_text("utf-8"))
        except (OSError, ValueError):
            continue
        return checkpoint
    return None


def _scale_learning_rates(optimizer: torch.optim.Optimizer, model: nn.Module, method: Method) -> None:
    factors = {parameter: method.scale_learning_rate(name) for name, parameter in model.named_parameters()}
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


def _list_trained(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().cpu().contiguous().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _rename_metric(name: str) -> str:
    if name in ("loss", "grad_norm", "learning_rate"):
        return f"train/{name}"
    if name.startswith("eval_") and not name.endswith(("_runtime", "_per_second")):
        return f"validation/{name.removeprefix('eval_')}"
    return ""
