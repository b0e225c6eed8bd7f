"""What fine-tuning loads and checks before the first training step."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.models.blocks import read_width
from lorry_components.models.dropout_fields import list_dropouts
from lorry_components.tasks.checks import check_base, load_config
from lorry_components.tasks.resolution import ResolvedTask
from lorry_components.training.byte_dropout import quicken_dropout
from lorry_components.training.distributed import count_processes, is_first_process
from lorry_components.training.optimizers import prepare_optimizer
from lorry_components.training.precision import Hardware, Precision, choose_precision, detect_hardware
from lorry_registry.errors import TrainingError
from lorry_registry.manifest import ParameterCounts
from lorry_registry.task_spec import TrainSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """A task that is ready to be trained.

    Attributes:
        task: The task.
        model: Its base with the method's changes, in the precision of training.
        reader: Turns rows into inputs, such as the base's tokenizer.
        newly_initialized: The names of parameters that the base's weights do not hold.
        parameters: How many numbers are trained.
        learning_rate: The peak learning rate: the task's, or the method's own.
        hardware: What it will be trained on.
        precision: The number format of frozen weights and matrix products.
    """

    task: ResolvedTask
    model: "nn.Module"
    reader: Any
    newly_initialized: frozenset[str]
    parameters: ParameterCounts
    learning_rate: float
    hardware: Hardware
    precision: Precision


def set_up_training(task: ResolvedTask, labels: Sequence[str] | None) -> TrainingSetup:
    """Load the base under the task's head, and make it trainable by the task's method.

    Args:
        task: The task.
        labels: The classes, or None.

    Raises:
        BaseModelError: The base is not usable.
        InvalidTaskError: The method does not work on this base.
        MissingExtraError: The method or the optimizer needs a library that is not installed.
        TrainingError: The method does not fit the base, the optimizer does not work on this machine, or a
            batch cannot be divided among the processes.
    """
    import torch
    from transformers import set_seed

    spec = task.spec
    _check_batch_size(spec.train.batch_size)
    base = task.base
    check_base(spec, base.folder)
    hardware = detect_hardware()
    precision = choose_precision(
        spec.train.precision, hardware, max_length=spec.data.max_length, is_packed=spec.train.packing
    )
    if is_first_process():
        # What works on one of a machine's devices works on its others.
        prepare_optimizer(spec.train.optimizer, hardware.device)
    task_type, method = task.task_type, task.method
    set_seed(spec.train.seed)
    bare, newly_initialized = task_type.load_model(
        base.folder,
        labels,
        **({} if task_type.reads_images else _list_model_options(spec.train, base.folder, precision)),
        **method.list_load_options(),
    )
    learning_rate = spec.train.learning_rate or method.choose_learning_rate(read_width(bare))
    model = method.adapt(bare, newly_initialized)
    if method.freezes_base and precision.name != "fp32":
        _cast_frozen(model, torch.bfloat16 if precision.name == "bf16" else torch.float16)
    if spec.train.packing:
        # With a cache, attention could not tell the sequences of a row apart.
        bare.config.use_cache = False
    if hardware.device == "cpu":
        quicken_dropout(model)
    return TrainingSetup(
        task=task,
        model=model,
        reader=task_type.load_reader(base.folder),
        newly_initialized=newly_initialized,
        parameters=method.count_parameters(model, newly_initialized),
        learning_rate=learning_rate,
        hardware=hardware,
        precision=precision,
    )


def _check_batch_size(batch_size: int) -> None:
    """Check that a batch can be divided among the processes of this training.

    Raises:
        TrainingError: It cannot.
    """
    if batch_size % count_processes():
        raise TrainingError(
            f"a batch of {batch_size} cannot be divided among {count_processes()} processes",
            where="train.batch_size",
            todo=f"choose a multiple of {count_processes()}, or another resources.count",
        )


def _list_model_options(train: TrainSpec, folder: Path, precision: Precision) -> dict[str, Any]:
    options: dict[str, Any] = list_dropouts(train, load_config(folder))
    if precision.attention is not None:
        options["attn_implementation"] = precision.attention
    return options


def _cast_frozen(model: "nn.Module", dtype: Any) -> None:
    for parameter in model.parameters():
        # The packed numbers of a quantized base are not floating-point numbers.
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
