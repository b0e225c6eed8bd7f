"""Callbacks of a training: the method's, early stopping, and progress."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import transformers
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorry_components.methods import Method
from lorry_components.progress import Progress, describe_continuation, format_seconds

LogMetrics = Callable[[Mapping[str, float], int], None]
"""Takes values by their names in MLflow, and the step that they belong to."""


class MethodCallback(TrainerCallback):
    """Lets the method act before the first step and after each one."""

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
        """Announce how many steps there will be."""
        self._method.start_training(model, state.max_steps)

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Announce that the weights were updated; their gradients are still there."""
        self._method.finish_step(model, state.global_step + 1)


class EarlyStoppingCallback(transformers.EarlyStoppingCallback):
    """transformers' early stopping, where the best weights are loaded by us.

    It keeps its name, under which a checkpoint stores its patience counter.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Do nothing: transformers' own warns that Trainer will not load the best weights."""


class SparseEvaluationCallback(TrainerCallback):
    """Evaluates some epochs only, evenly spaced, and always the last one.

    Few rows take many epochs, and evaluating each would then take most of the time.

    Args:
        most: How many epochs are evaluated at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Call off the evaluation of an epoch that is not among the chosen ones."""
        interval = math.ceil(state.num_train_epochs / self._most)
        epoch = round(state.epoch or 0)
        if epoch % interval and state.global_step < state.max_steps:
            control.should_evaluate = False


class ProgressCallback(TrainerCallback):
    """Reports how many steps are done, how fast and with which loss, and passes metrics on.

    Args:
        progress: Called with the number of steps that are done.
        log_metrics: Called with losses, learning rates and validation metrics.
        peak_rates: Peak learning rates by the names under which the present ones are passed on.
    """

    def __init__(self, progress: Progress, log_metrics: LogMetrics, peak_rates: Mapping[str, float]) -> None:
        self._progress = progress
        self._log_metrics = log_metrics
        self._peak_rates = peak_rates
        self._loss = math.nan
        self._first = 0
        self._started = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Report where training starts, or goes on."""
        self._first, self._started = state.global_step, time.monotonic()
        if state.is_world_process_zero:
            self._progress(state.global_step, state.max_steps, self._describe(args, state))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Report that a step is done."""
        if state.is_world_process_zero:
            self._progress(state.global_step, state.max_steps, self._describe(args, state))

    def _describe(self, args: TrainingArguments, state: TrainerState) -> str:
        """Return what is known of the course: ``loss 0.231, 212 rows/s, 40 s left``."""
        done, seconds = state.global_step - self._first, time.monotonic() - self._started
        if not done:
            return describe_continuation(self._first, state.max_steps)
        rows = done * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        left = format_seconds(seconds / done * (state.max_steps - state.global_step))
        loss = [f"loss {self._loss:.3g}"] if math.isfinite(self._loss) else []
        return ", ".join([*loss, f"{rows / max(seconds, 1e-3):.3g} rows/s", f"{left} left"])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """Pass metrics on, under names that MLflow groups well; stop when the loss has diverged."""
        named = {_rename_metric(name): value for name, value in (logs or {}).items()}
        if logs and "learning_rate" in logs:
            # Trainer tells that of its first group, and all groups follow one schedule.
            share = logs["learning_rate"] / optimizer.param_groups[0]["initial_lr"]
            named |= {name: rate * share for name, rate in self._peak_rates.items()}
        if not math.isfinite(named.get("train/loss", 0.0)):
            # No later step can mend it.
            control.should_training_stop = True
        self._loss = named.get("train/loss", self._loss)
        if state.is_world_process_zero:
            self._log_metrics({name: value for name, value in named.items() if name}, state.global_step)


def _rename_metric(name: str) -> str:
    # MLflow's pages begin with what has a slash in its name.
    if name == "loss":
        return f"train/{name}"
    if name == "grad_norm":
        return name
    if name.startswith("eval_") and not name.endswith(("_runtime", "_per_second")):
        return f"validation/{name.removeprefix('eval_')}"
    return ""
