"""What would take less memory, and how much less."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lorry_components.planning.devices import Device, find_smallest_device
from lorry_components.planning.memory import Footprint, Recipe, estimate_training, shrink_batch

# Below this share of the whole a change is not worth making.
_LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Advice:
    """A change that takes less.

    Attributes:
        change: What to change, in a few words.
        saved: Bytes that it saves of the high end.
        needed: The high end afterwards.
        device: The smallest GPU that then holds it; None: none does.
    """

    change: str
    saved: int
    needed: int
    device: Device | None


def list_advice(footprint: Footprint, recipe: Recipe) -> list[Advice]:
    """Return the changes that save at least a hundredth, the largest first, and all of them together."""
    needed = estimate_training(footprint, recipe).high
    found = []
    combined = recipe
    for change, changed in _list_changes(footprint, recipe):
        after = estimate_training(footprint, changed).high
        if needed - after >= _LEAST_SHARE * needed:
            found.append(Advice(change, needed - after, after, find_smallest_device(after)))
            combined = _merge(recipe, combined, changed)
    found.sort(key=lambda advice: advice.saved, reverse=True)
    if len(found) > 1:
        after = estimate_training(footprint, combined).high
        found.append(Advice("all of these together", needed - after, after, find_smallest_device(after)))
    return found


def _list_changes(footprint: Footprint, recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    if not recipe.is_checkpointed:
        yield "gradient checkpointing", replace(recipe, is_checkpointed=True)
    if recipe.precision == "fp32":
        yield "train.precision: bf16", replace(recipe, precision="bf16")
    if not recipe.is_eight_bit:
        yield "train.optimizer: adamw-8bit", replace(recipe, is_eight_bit=True)
    can_pack = footprint.freezes_base and footprint.frozen_matrices > 0
    if recipe.device == "cuda" and can_pack and not recipe.is_four_bit:
        half = recipe.precision if recipe.precision != "fp32" else "bf16"
        yield "QLoRA: the frozen base in four bits", replace(recipe, is_four_bit=True, precision=half)
    if recipe.device == "cuda" and not recipe.is_offloaded:
        yield "offloading weights and optimiser to host memory", replace(recipe, is_offloaded=True)
    if recipe.rows > 1:
        smaller = shrink_batch(recipe)
        yield (
            f"train.batch_size: {smaller.rows}, and twice the gradient_accumulation",
            smaller,
        )


def _merge(original: Recipe, combined: Recipe, changed: Recipe) -> Recipe:
    """Take over what a change changed."""
    differing = {
        name: getattr(changed, name)
        for name in Recipe.__dataclass_fields__
        if getattr(changed, name) != getattr(original, name)
    }
    return replace(combined, **differing)
