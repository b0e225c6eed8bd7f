"""The interface of a method."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from lorry_registry.manifest import BaseIdentity, ParameterCounts

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class MethodOptions(BaseModel):
    """The options of a method, as they stand beside its name in a task file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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

    Attributes:
        name: Its name in task files.
        summary: What it trains, in a few words.
        learning_rate: The learning rate when a task names none.
        max_adapter_mib: Adapters above this many MiB are refused unless the task says otherwise;
            None: as large as its base.
        freezes_base: Whether the base's weights stay as they are, so that they may be held in half precision.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    learning_rate: ClassVar[float]
    max_adapter_mib: ClassVar[float | None]
    freezes_base: ClassVar[bool]
    options_model: ClassVar[type[MethodOptions]]

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options: Any = self.options_model.model_validate(dict(options))

    @abstractmethod
    def adapt(self, model: "PreTrainedModel", fresh: frozenset[str]) -> "nn.Module":
        """Make a loaded base trainable.

        Args:
            model: The base with its new head.
            fresh: Names of parameters that the base's weights do not hold, such as the head's: they are
                trained and saved whatever the method is.

        Raises:
            TrainingError: The method does not fit this base; the message says what would.
        """

    @abstractmethod
    def save(self, model: "nn.Module", folder: Path, base: BaseIdentity) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors``: the change, never the base."""

    @abstractmethod
    def restore(self, model: "PreTrainedModel", folder: Path, fresh: frozenset[str]) -> AdaptedModel:
        """Put a saved adapter on a freshly loaded base. The folder's files were verified before.

        Args:
            model: The base with a new head.
            folder: The adapter.
            fresh: Names of parameters that the base's weights do not hold: the adapter must.

        Raises:
            AdapterRejectedError: Unknown configuration, or tensors whose names or shapes do not fit.
        """

    def count_soft_tokens(self) -> int:
        """Return how many positions of the base the method takes up before each input."""
        return 0

    def count_parameters(self, model: "nn.Module", fresh: frozenset[str]) -> ParameterCounts:
        """Count the trained parameters of an adapted model, the head's apart, and all of the model's."""
        head = sum(
            parameter.numel()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and is_fresh(name, fresh)
        )
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        # A frozen twin of a module that is trained and saved in full does not count twice.
        total = sum(
            parameter.numel()
            for name, parameter in model.named_parameters()
            if ".original_module." not in name
        )
        return ParameterCounts(adapter=trained - head, head=head, total=total)


def is_fresh(name: str, fresh: frozenset[str]) -> bool:
    """Return whether a parameter of an adapted model is one that the base's weights do not hold."""
    plain = name.replace(".modules_to_save.default", "")
    return any(plain == bare or plain.endswith(f".{bare}") for bare in fresh)


def list_fresh_modules(model: "PreTrainedModel", fresh: frozenset[str]) -> list[str]:
    """Return the modules that hold the fresh parameters: a whole head, or single modules inside the base."""
    prefix = f"{model.base_model_prefix}."
    modules = {
        name.rpartition(".")[0] if name.startswith(prefix) else name.partition(".")[0] for name in fresh
    }
    return sorted(modules)
