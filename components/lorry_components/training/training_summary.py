"""The record of a training beside its adapter, for the later steps."""

import importlib.metadata
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from lorry_components.task_types import TaskType
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.manifest import BaseIdentity, ParameterCounts, Pooling, TrainingInputs

ADAPTER_FOLDER = "adapter"
_NAME = "training.json"
_LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "lorry")


class TrainingSummary(BaseModel):
    """How an adapter was trained.

    Attributes:
        base: The base it was trained on.
        inputs: The digests of everything that the result depends on.
        labels: The classes, or None.
        has_pair: Whether the task is about pairs of texts.
        parameters: How many numbers were trained.
        learning_rate: The peak learning rate.
        device: What it was trained on.
        precision: The number format of frozen weights and matrix products.
        examples: Training rows.
        steps: Optimizer steps in all.
        batch_size: Rows in one forward pass, those of all processes together; None: nothing was trained in
            steps.
        epochs: Passes over the training rows; None: as above.
        head_learning_rate: The peak learning rate of a new head; None: there is none.
        head_init: What a new head's weights were before training: ``probe``, ``random`` or ``champion``; "":
            there is none.
        resumed_from: The step that this process went on from; 0: it trained from the start.
        seconds: Wall time of the training loop in this process, validation included.
        examples_per_second: Rows trained a second, validation included.
        loss: The mean training loss of this process.
        libraries: The versions of the libraries that train and read the adapter.
        head: What a head of Lorry's own reads; None: the head is that of transformers' class, or there is
            none.
        start_refused: Why it did not begin with the champion's adapter, as the task asks; "": it did, or the
            task asks for no such thing.
        kept_start: Why nothing of it was kept but a fitted head; "": it is what was trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: BaseIdentity
    inputs: TrainingInputs
    labels: tuple[str, ...] | None
    has_pair: bool
    parameters: ParameterCounts
    learning_rate: float
    device: str
    precision: str
    examples: int
    steps: int
    resumed_from: int
    seconds: float
    examples_per_second: float
    loss: float
    libraries: dict[str, str]
    batch_size: int | None = None
    epochs: float | None = None
    head_learning_rate: float | None = None
    head_init: str = ""
    head: Pooling | None = None
    start_refused: str = ""
    kept_start: str = ""

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        write_whole_text(folder / _NAME, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read it from a folder."""
        return cls.model_validate_json((folder / _NAME).read_text("utf-8"))


def read_versions(task_type: TaskType) -> dict[str, str]:
    """Return the versions of the libraries that a task type is trained and read with."""
    return {name: importlib.metadata.version(name) for name in (*_LIBRARIES, *task_type.libraries)}
