"""Text with a head: task types that put a new head on a base and train it with the adapter."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.models.pretrained import load_pretrained
from lorry_components.task_types.text_task import TextTaskType

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TextHeadTaskType(TextTaskType):
    """A task type whose head is new: random before training, and saved with the adapter."""

    def name_outputs(self, labels: Sequence[str] | None) -> dict[str, Any]:
        """Return the fields of the base's configuration that name the head's outputs."""
        return {}

    def choose_loader(self, folder: Path) -> Any:
        """Return what puts the head on a base: a class of transformers', or what loads as such a class does.

        Raises:
            BaseModelError: The base's files are damaged.
        """
        return self.model_class

    def load_model(
        self, folder: Path, labels: Sequence[str] | None, **options: Any
    ) -> "tuple[PreTrainedModel, frozenset[str]]":
        """Load the base with a head of the size that the labels need."""
        return load_pretrained(
            self.choose_loader(folder),
            folder,
            may_miss=True,
            **self.name_outputs(labels),
            **self.describe_head(labels),
            **options,
        )
