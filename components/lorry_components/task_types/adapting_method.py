"""The interface that a task type asks of the method that adapts its base."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from lorry_registry.errors import Fault

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class AdaptingMethod(Protocol):
    """What a task type asks of the method that adapts its base."""

    name: ClassVar[str]

    def check_base(self, config: "PretrainedConfig") -> Iterable[Fault]:
        """Say why the method cannot work on a base, from the base's configuration alone."""

    def check_model(self, model: Any) -> Iterable[Fault]:
        """Say why the method cannot work on a model, which may have shapes and no numbers."""

    def count_added_tokens(self) -> int:
        """Return how many positions of the base's input the method itself takes up."""
