"""The learning rate of a head."""

from lorry_registry.tasks.task_spec import HeadSpec

FITTED_HEAD_RATE = 1e-3
"""The highest peak learning rate of a head that was fitted first, unless the task asks for another."""


def choose_head_rate(head: HeadSpec | None, learning_rate: float, *, is_fitted: bool) -> float:
    """Choose the peak learning rate of a head.

    What suits soft tokens or scales would tear a fitted head apart before they have learned anything.

    Args:
        head: The task's own section about it, if there is one.
        learning_rate: That of the adapter.
        is_fitted: Whether the head was fitted before training.
    """
    if head is not None and head.learning_rate is not None:
        return head.learning_rate
    return min(learning_rate, FITTED_HEAD_RATE) if is_fitted else learning_rate
