"""The durations of a task's earlier steps, by the same recipe and on the same kind of machine."""

from collections.abc import Callable, Mapping

from pydantic import JsonValue

from lorry_components.steps.runtime.outcomes import RunRecord
from lorry_registry.errors import LorryError
from lorry_registry.registry import Registry
from lorry_registry.tasks.task_spec import TaskSpec

# How many versions back is looked: each takes some requests to the store.
_LOOKED_AT = 5


def find_step_durations(
    spec: TaskSpec, registry: Registry, is_same: Callable[[Mapping[str, JsonValue]], bool]
) -> tuple[str, dict[str, float]]:
    """Return the last version of the same recipe and such a machine, and how many seconds each step took.

    Args:
        spec: The task.
        registry: Where its versions are.
        is_same: Says by what fine-tuning left in its outcome whether the machine was of the same kind.

    Returns:
        The version, such as ``v3``, and step -> seconds; "" and nothing if there is none.

    Raises:
        StoreError: The store cannot be read.
    """
    try:
        versions = registry.list_versions(spec.name)
    except LorryError:
        # What is wrong with a ledger is reported where it is needed.
        return "", {}
    for version in reversed(versions[-_LOOKED_AT:]):
        run = version.registered.details.get("run")
        if not isinstance(run, str) or not run:
            continue
        try:
            manifest = registry.read_version(spec.name, version.number, version.adapter_id)
        except LorryError:
            # As above.
            continue
        if manifest is None or manifest.inputs.recipe_digest != spec.recipe_digest:
            # Twice the steps take twice as long.
            continue
        outcomes = RunRecord(registry.store, run).read(spec.name)
        trained = [outcome.details for outcome in outcomes if outcome.step == "finetune"]
        # One that went on from a checkpoint took longer than its last process did.
        if len(trained) == 1 and not trained[0].get("resumed_from") and is_same(trained[0]):
            return f"v{version.number}", {outcome.step: outcome.seconds for outcome in outcomes}
    return "", {}
