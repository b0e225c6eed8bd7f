"""Whose an experiment or a registered model in MLflow is, by its tags.

Anybody may set them, but no user does so by chance.

MLflow knows both by name alone, and names of tasks are common words. What Lorry made says so, and says for
which registry; anything else of the same name belongs to a user, and is left as it is.
"""

from collections.abc import Mapping

from lorry_registry.errors import TrackingError

TASK_TAG = "lorry.task"
REGISTRY_TAG = "lorry.registry"


def check_owner(
    thing: str, task: str, tags: Mapping[str, str], registry_id: str | None, *, address: str, then: str
) -> None:
    """Raise unless a thing with the name of a task was made by Lorry, and by no other registry.

    Args:
        thing: What it is: ``experiment`` or ``registered model``.
        task: The task, which is the thing's name.
        tags: Its tags.
        registry_id: The registry that asks; None: every registry's will do.
        address: MLflow's address without secrets.
        then: The command to run when the conflict is resolved.

    Raises:
        TrackingError: Another client made it, or it belongs to another registry.
    """
    if tags.get(TASK_TAG) != task:
        raise TrackingError(
            f"{'an' if thing[0] in 'aeiou' else 'a'} {thing} named {task!r} exists that Lorry did not make; "
            "it was left as it is",
            where=address,
            todo=f"rename that {thing.rpartition(' ')[2]}, or use another MLflow, or, if it is Lorry's, set "
            f"its tag {TASK_TAG} to {task}; then run: {then}",
        )
    owner = tags.get(REGISTRY_TAG)
    if registry_id is not None and owner not in (None, registry_id):
        raise TrackingError(
            f"the {thing} {task!r} belongs to another registry ({owner}), and this one is "
            f"{registry_id}; it was left as it is",
            where=address,
            todo=f"rename the task, or use another MLflow, or, if this store replaces the other one, set "
            f"the {thing.rpartition(' ')[2]}'s tag {REGISTRY_TAG} to {registry_id}; then run: {then}",
        )
