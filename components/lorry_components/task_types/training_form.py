"""The form of a task type's training examples: what a trainer has to know of it."""

from dataclasses import dataclass
from typing import Literal

Loss = Literal["batch_mean", "token_mean", "next_token_mean"]


@dataclass(frozen=True, slots=True)
class TrainingForm:
    """How the examples of a task type are trained on, for the trainer.

    Attributes:
        label_names: The features that the loss is computed against.
        loss: Over what the loss of a batch is a mean: ``batch_mean``: as the model computes it, each batch
            counts the same; ``token_mean``: over the supervised tokens, whose number varies by batch;
            ``next_token_mean``: the same for a causal language model, whose labels are one for each position,
            which the position before it has to predict.
        scores_outputs: Whether metrics can be computed from the outputs of validation, so that an epoch can
            be chosen by them and not by the loss.
        scales_labels: Whether labels are numbers that a new head learns in units of their spread.
    """

    label_names: tuple[str, ...] = ("labels",)
    loss: Loss = "batch_mean"
    scores_outputs: bool = False
    scales_labels: bool = False

    @property
    def averages_tokens(self) -> bool:
        """Whether batches that are accumulated count by how many supervised tokens they have."""
        return self.loss != "batch_mean"

    @property
    def predicts_next(self) -> bool:
        """Whether outputs are only needed at the positions before supervised tokens."""
        return self.loss == "next_token_mean"
