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

    def advise(change: str, changed: Recipe) -> Advice:
        after = estimate_training(footprint, changed).high
        return Advice(change, needed - after, after, find_smallest_device(after))

    found = [(advise(change, changed), changed) for change, changed in _list_changes(footprint, recipe)]
    found = [(advice, changed) for advice, changed in found if advice.saved >= _LEAST_SHARE * needed]
    found.sort(key=lambda pair: pair[0].saved, reverse=True)
    combined, left_out = recipe, ""
    for advice, changed in found:
        merged = _merge(recipe, combined, changed)
        if merged.is_four_bit and merged.is_offloaded:
            # Weights in four bits cannot be divided. What saves more has been taken.
            left_out = f" but {advice.change}"
        else:
            combined = merged
    together = [advise(f"all of these together{left_out}", combined)] if len(found) > 1 else []
    return [*(advice for advice, _ in found), *together]


def _list_changes(footprint: Footprint, recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    if not recipe.is_checkpointed:
        yield "train.gradient_checkpointing: true", replace(recipe, is_checkpointed=True)
    if recipe.precision == "fp32":
        yield "train.precision: bf16", replace(recipe, precision="bf16")
    if not recipe.is_eight_bit:
        yield "train.optimizer: adamw-8bit", replace(recipe, is_eight_bit=True)
    if recipe.device == "cuda" and footprint.freezes_base and not (recipe.is_four_bit or recipe.is_offloaded):
        if footprint.frozen_matrices:
            half = recipe.precision if recipe.precision != "fp32" else "bf16"
            yield "method.name: qlora", replace(recipe, is_four_bit=True, precision=half)
        if footprint.largest_block:
            yield "train.offload: true", replace(recipe, is_offloaded=True)
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
