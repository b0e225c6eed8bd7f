"""The interface of a method."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lorry_registry.errors import AdapterRejectedError, Fault, TrainingError
from lorry_registry.manifest import BaseIdentity, ParameterCounts
from lorry_registry.tasks.task_document import suggest_name
from lorry_registry.tasks.task_loading import describe_fault
from lorry_registry.tasks.task_sections import salvage_section
from lorry_registry.tasks.task_spec import TrainSpec

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

MEASURED_WIDTH = 384
"""The width of all-MiniLM-L6-v2, on which the default learning rates of the methods were measured."""

# Names that people or PEFT use for an option, and that are spelled too differently to be guessed.
_OTHER_NAMES = {
    "rank": "r",
    "init_r": "r",
    "init_lora_weights": "init",
    "layers_to_transform": "layers",
    "deltaT": "interval",
    "orth_reg_weight": "orthogonality",
}


class MethodOptions(BaseModel):
    """The options of a method, as they are written beside its name in a task file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def soft_template(self) -> str | None:
        """The template that says where soft tokens stand in the input; None: none stand between its words."""
        return None


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The options of a task file, validated.

    Attributes:
        options: The options; None: none could be read. If there are faults, they are for further checks only:
            invalid options have their default values.
        faults: All that is wrong with the options.
    """

    options: MethodOptions | None
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class AdaptedModel:
    """A base with an adapter.

    Attributes:
        model: What is called.
        without_adapter: A context in which the base's own weights act again, below the trained head.
    """

    model: "nn.Module"
    without_adapter: Callable[[], AbstractContextManager[None]]


class Method(ABC):
    """One way of adapting a base.

    Args:
        options: The options: those that :meth:`read_options` validated, or a mapping that is validated now;
            None: a saved adapter will be restored, which has its own.
        peft_task_type: What PEFT calls the task type, see :attr:`TaskType.peft_task_type`.

    Attributes:
        name: Its name in task files.
        summary: What it trains, in a few words.
        learning_rate: The learning rate of tasks that name none, on a base as wide as that of the
            measurements; see :meth:`choose_learning_rate`.
        learns_matrices: Whether it trains matrices over the base's width, not vectors or tokens.
        max_adapter_mib: Adapters above this many MiB are refused unless the task says otherwise;
            None: as large as its base.
        survives_checkpointing: Whether it works when layers are recomputed in the backward pass.
        freezes_base: Whether the base's weights stay as they are, so that they may be held in half precision.
        holds_four_bits: Whether the base's matrices are held in four bits.
        copies_trained: Whether it keeps a copy of what it trains in the host's memory, to save what changed.
        adds_positions: Whether the base reads positions, or keys and values, beside those of the input.
        starts_as_base: Whether the base computes before the first step what it computes without the method,
            so that a head can be fitted to the base alone.
        trains_in_steps: Whether there is anything to train; otherwise the head is fitted at once.
        continues: Whether training can go on from a saved adapter of it, see :meth:`continue_from`.
        code_version: Is raised when a change of its code changes what is learned, see
            :mod:`lorry_components.tasks.code_versions`.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    learning_rate: ClassVar[float]
    learns_matrices: ClassVar[bool] = False
    max_adapter_mib: ClassVar[float | None]
    freezes_base: ClassVar[bool]
    survives_checkpointing: ClassVar[bool] = True
    holds_four_bits: ClassVar[bool] = False
    copies_trained: ClassVar[bool] = False
    adds_positions: ClassVar[bool] = False
    starts_as_base: ClassVar[bool] = True
    trains_in_steps: ClassVar[bool] = True
    continues: ClassVar[bool] = False
    code_version: ClassVar[int] = 1
    options_model: ClassVar[type[MethodOptions]]

    def __init__(
        self, options: MethodOptions | Mapping[str, Any] | None, peft_task_type: str | None = None
    ) -> None:
        # Those of a task file were validated when it was read.
        if isinstance(options, Mapping):
            options = self.options_model.model_validate(dict(options))
        self.options: Any = options
        self.peft_task_type = peft_task_type

    @classmethod
    def read_options(cls, options: Mapping[str, Any]) -> ReadOptions:
        """Validate the options of a task file, without a base."""
        try:
            return ReadOptions(cls.options_model.model_validate(dict(options)))
        except ValidationError as error:
            faults = tuple(cls._describe_faults(error))
        return ReadOptions(salvage_section(cls.options_model, options), faults)

    @classmethod
    def _describe_faults(cls, error: ValidationError) -> Iterator[Fault]:
        # An option that may be of several types has a fault for each of them: one is enough.
        by_option = {detail["loc"][:1]: detail for detail in reversed(error.errors())}
        for place, detail in reversed(by_option.items()):
            if detail["type"] == "extra_forbidden":
                yield report_unknown(cls.name, str(place[0]), cls.options_model.model_fields)
            else:
                # What concerns several options at once has no place of its own.
                yield replace(describe_fault(detail), where=".".join(["method", *map(str, place)]))

    def check_base(self, config: "PretrainedConfig") -> Iterable[Fault]:
        """Return why the method cannot work on a base, from the base's configuration alone."""
        return ()

    def check_model(self, model: Any) -> Iterable[Fault]:
        """Say why the method cannot work on a model, which may have shapes and no numbers."""
        return ()

    def count_added_tokens(self) -> int:
        """Return how many positions of the base's input the method itself takes."""
        return 0

    def list_load_options(self) -> dict[str, Any]:
        """Return the arguments that the base is loaded with, beside those of the task type.

        Raises:
            MissingExtraError: This needs a library that is not installed.
        """
        return {}

    @abstractmethod
    def adapt(self, model: "PreTrainedModel", newly_initialized: frozenset[str]) -> "nn.Module":
        """Make a loaded base trainable.

        Args:
            model: The base with its new head.
            newly_initialized: Names of parameters that are not in the base's weights, such as the head's:
                they are trained and saved with every method.

        Raises:
            TrainingError: The method does not fit this base; the message says what does.
        """

    @abstractmethod
    def save(self, model: "nn.Module", folder: Path, base: BaseIdentity) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors``: the change, never the base."""

    @abstractmethod
    def restore(
        self, model: "PreTrainedModel", folder: Path, newly_initialized: frozenset[str]
    ) -> AdaptedModel:
        """Put a saved adapter on a freshly loaded base. The folder's files have been verified.

        Args:
            model: The base with a new head.
            folder: The adapter.
            newly_initialized: Names of parameters that are not in the base's weights, so that the adapter
                must hold them.

        Raises:
            AdapterRejectedError: The configuration is unknown, or names or shapes of tensors do not fit.
        """

    @property
    def can_be_left_out(self) -> bool:
        """Whether :meth:`leave_out` works, where the base does not start as the base alone."""
        return False

    def leave_out(self, model: "nn.Module") -> None:
        """Let an adapted base compute from now on, and :meth:`save` save, what it is without the method.

        Raises:
            TrainingError: That is no adapter of this method.
        """
        raise TrainingError(f"{self.name} cannot be left out of an adapter", where="method.name")

    def check_continuing(self) -> Iterable[Fault]:
        """Return why training cannot go on from a saved adapter with these options."""
        return ()

    def continue_from(self, model: "nn.Module", folder: Path, newly_initialized: frozenset[str]) -> None:
        """Put a saved adapter into an adapted model, from which training then goes on.

        Args:
            model: What :meth:`adapt` returned.
            folder: The adapter, whose files have been verified.
            newly_initialized: Names of parameters that are not in the base's weights.

        Raises:
            AdapterRejectedError: It has another configuration, or its tensors do not fit; the model is as it
                was then.
        """
        raise AdapterRejectedError(f"{self.name} cannot go on from an adapter", where=str(folder))

    def list_shapes(self, model: "nn.Module") -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of what :meth:`save` would write, without computing it."""
        return {
            name: tuple(parameter.shape)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    def start_training(self, model: "nn.Module", steps: int) -> None:  # noqa: B027 - most have nothing to do
        """Prepare for a number of optimiser steps, before the first one."""

    def finish_step(self, model: "nn.Module", step: int) -> None:  # noqa: B027 - most have nothing to do
        """Do what is due after an optimiser step, counted from 1, while its gradients are still there."""

    def export_state(self, model: "nn.Module") -> "dict[str, torch.Tensor]":
        """Return the tensors that a checkpoint needs beside the trained parameters."""
        return {}

    def import_state(self, model: "nn.Module", state: "Mapping[str, torch.Tensor]") -> None:  # noqa: B027
        """Restore what :meth:`export_state` returned, when training is resumed."""

    @classmethod
    def choose_learning_rate(cls, width: int) -> float:
        """Return the learning rate of tasks that name none, to two digits.

        A step of Adam on a matrix changes the matrix's outputs in proportion to the number of its inputs, so
        that the best learning rate falls with the width of the base; that of vectors and tokens does not
        (Yang et al. 2022, https://arxiv.org/abs/2203.03466). On narrower bases it is not raised.

        Args:
            width: The width of the base's residual stream, see :func:`read_width`.
        """
        if not cls.learns_matrices or width <= MEASURED_WIDTH:
            return cls.learning_rate
        return float(f"{cls.learning_rate * MEASURED_WIDTH / width:.2g}")

    def scale_learning_rate(self, name: str) -> float:
        """Return the factor on the learning rate of a trained parameter."""
        return 1.0

    def count_parameters(self, model: "nn.Module", newly_initialized: frozenset[str]) -> ParameterCounts:
        """Count the parameters of an adapted model: the trained ones, those of the head apart, and all."""
        head = sum(
            count_numbers(parameter)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and is_newly_initialized(name, newly_initialized)
        )
        trained = sum(count_numbers(parameter) for parameter in model.parameters() if parameter.requires_grad)
        # The frozen original of a module that is trained in full is not counted as well.
        total = sum(
            count_numbers(parameter)
            for name, parameter in model.named_parameters()
            if ".original_module." not in name
        )
        return ParameterCounts(adapter=trained - head, head=head, total=total)


def count_numbers(parameter: "nn.Parameter") -> int:
    """Return how many numbers a parameter holds: on a 4-bit base it packs two into a byte."""
    quantization = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if quantization is None else quantization.shape.numel())


def report_unknown(name: str, option: str, known: Iterable[str]) -> Fault:
    """Return the fault that a method has no such option, with the one that may be meant."""
    names = set(known)
    meant = _OTHER_NAMES.get(option)
    if meant in names:
        remedy = f"did you mean {meant!r}?"
    elif option in TrainSpec.model_fields:
        remedy = f"it belongs to the train section: train.{option}"
    else:
        remedy = suggest_name(option, names)
    return Fault(f"method.{option}", f"{name} has no option {option!r}", remedy)


def refuse_faults(faults: Iterable[Fault]) -> None:
    """Raise if there is a fault.

    Raises:
        TrainingError: It names the first one.
    """
    for fault in faults:
        raise TrainingError(
            fault.what, where=fault.where, todo=fault.remedy or "correct the task's method section"
        )


def is_newly_initialized(name: str, newly_initialized: frozenset[str]) -> bool:
    """Return whether a parameter of an adapted model is not in the base's weights."""
    plain = name.replace(".modules_to_save.default", "")
    return any(plain == bare or plain.endswith(f".{bare}") for bare in newly_initialized)


def list_newly_initialized_modules(model: "PreTrainedModel", newly_initialized: frozenset[str]) -> list[str]:
    """Return the modules of newly initialized parameters: a whole head, or single ones inside the base."""
    if not newly_initialized:
        return []
    prefix = f"{model.base_model_prefix}."
    modules = {
        name.rpartition(".")[0] if name.startswith(prefix) else name.partition(".")[0]
        for name in newly_initialized
    }
    return sorted(modules)
