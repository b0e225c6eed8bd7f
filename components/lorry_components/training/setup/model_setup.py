"""The adapted model that a training begins with, and its number format and kernels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorry_components.methods import Method
from lorry_components.models.bases import Base
from lorry_components.models.dimensions import read_width
from lorry_components.models.narrow_layer import narrow_last_layer
from lorry_components.task_types import TaskType
from lorry_components.training.distributed.process_group import ProcessGroup
from lorry_components.training.kernels.fused_lora import fuse_lora
from lorry_components.training.setup.head_rate import choose_head_rate
from lorry_components.training.setup.optimizers import prepare_optimizer
from lorry_components.training.setup.precision import (
    Hardware,
    Precision,
    choose_task_precision,
    detect_hardware,
    find_dtype,
)
from lorry_registry.errors import TrainingError
from lorry_registry.manifest import ParameterCounts
from lorry_registry.tasks.task_spec import TaskSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that is loaded and checked before the first step is spent.

    Attributes:
        base: The base.
        task_type: The task type.
        method: What made the base trainable.
        model: The adapted base, with the task type's head.
        reader: What turns a row into the model's inputs, such as a tokenizer.
        newly_initialized: Names of parameters that the base's weights do not hold.
        parameters: How many numbers are trained.
        learning_rate: The peak learning rate: the task's own, or the method's choice.
        head_learning_rate: That of the head.
        hardware: Where it is trained.
        precision: How it is computed.
        group: The processes that train together.
    """

    base: Base
    task_type: TaskType
    method: Method
    model: "nn.Module"
    reader: Any
    newly_initialized: frozenset[str]
    parameters: ParameterCounts
    learning_rate: float
    head_learning_rate: float
    hardware: Hardware
    precision: Precision
    group: ProcessGroup


def check_batch_size(spec: TaskSpec, group: ProcessGroup) -> None:
    """Check that the rows of a batch can be divided among the processes.

    Raises:
        TrainingError: They cannot.
    """
    if spec.train.batch_size % group.count:
        raise TrainingError(
            f"a batch of {spec.train.batch_size} cannot be divided among {group.count} processes",
            where="train.batch_size",
            todo=f"choose a multiple of {group.count}, or another resources.count",
        )


def set_up(
    spec: TaskSpec,
    base: Base,
    task_type: TaskType,
    method: Method,
    *,
    labels: Sequence[str] | None,
    group: ProcessGroup,
) -> Setup:
    """Load the base, adapt it, and choose precision, optimizer and learning rate.

    Args:
        spec: The task.
        base: Its base, which the method works on.
        task_type: Its task type.
        method: Its method.
        labels: The classes, or None.
        group: The processes that train together.

    Raises:
        BaseModelError: The base is damaged, or its family has no head of this task type.
        MissingExtraError: The method or the optimizer needs a library that is not installed.
        TrainingError: The method does not fit the base, or this machine cannot compute the precision or the
            optimizer.
    """
    from transformers import set_seed

    hardware = detect_hardware()
    precision = choose_task_precision(spec, hardware)
    if group.is_first:
        # What works on one of a machine's devices works on its others.
        prepare_optimizer(spec.train.optimizer, hardware.device)
    set_seed(spec.train.seed)
    bare, newly_initialized = task_type.load_model(
        base.folder,
        labels,
        **task_type.list_load_options(base.folder, spec.train, precision.attention),
        **method.list_load_options(),
    )
    learning_rate = spec.train.learning_rate or method.choose_learning_rate(read_width(bare))
    model = method.adapt(bare, newly_initialized)
    if method.freezes_base:
        cast_frozen(model, precision)
    if spec.train.packing:
        # With a cache, sequences would not be kept apart.
        bare.config.use_cache = False
    reader = task_type.load_reader(base.folder)
    if task_type.reads_first_position(reader) and not method.adds_positions:
        narrow_last_layer(model)
    if hardware.device == "cpu":
        fuse_lora(model)
    return Setup(
        base=base,
        task_type=task_type,
        method=method,
        model=model,
        reader=reader,
        newly_initialized=newly_initialized,
        parameters=method.count_parameters(model, newly_initialized),
        learning_rate=learning_rate,
        head_learning_rate=choose_head_rate(spec.head, learning_rate, is_fitted=task_type.form.fits_head),
        hardware=hardware,
        precision=precision,
        group=group,
    )


def cast_frozen(model: "nn.Module", precision: Precision) -> None:
    """Hold what is not trained in the format of a precision; what is trained stays as it is."""
    if precision.name == "fp32":
        return
    dtype = find_dtype(precision.name)
    for parameter in model.parameters():
        # The packed weights of a quantized base are not floating-point numbers.
        if not parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
