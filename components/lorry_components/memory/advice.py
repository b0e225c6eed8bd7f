"""Changes that would take less memory, and how much less."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lorry_components.memory.acceptance import Accept
from lorry_components.memory.estimates import Footprint, Recipe, estimate_training
from lorry_components.memory.gpus import Device, find_smallest_device
from lorry_components.training.setup.optimizers import ADAMW_8BIT
from lorry_components.training.setup.precision import PrecisionName

# A change that saves a smaller share of the whole is not worth making.
_LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Advice:
    """A change that takes less.

    Attributes:
        change: What to change, in a few words.
        saved: Bytes that it saves of the high end.
        needed: The high end afterwards.
        device: The smallest GPU that is then large enough; None if none is.
    """

    change: str
    saved: int
    needed: int
    device: Device | None


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of a task file, in words and by field, and the resulting recipe."""

    words: str
    fields: Mapping[str, Any]
    recipe: Recipe


def list_advice(
    footprint: Footprint, recipe: Recipe, accepts: Accept, *, half: PrecisionName = "bf16"
) -> list[Advice]:
    """Return the changes that save at least a hundredth, the largest first, and all of them together.

    Args:
        footprint: The properties of the model that decide its memory.
        recipe: How it is trained.
        accepts: Says whether the task is still valid with some fields changed: no other change is suggested.
        half: The half-precision format that the device is fast in.
    """
    needed = estimate_training(footprint, recipe).high

    def advise(words: str, changed: Recipe) -> Advice:
        after = estimate_training(footprint, changed).high
        return Advice(words, needed - after, after, find_smallest_device(after))

    options = [
        (advise(change.words, change.recipe), change) for change in _list_changes(footprint, recipe, half)
    ]
    options = [(advice, change) for advice, change in options if advice.saved >= _LEAST_SHARE * needed]
    options = [(advice, change) for advice, change in options if accepts(change.fields)]
    options.sort(key=lambda pair: pair[0].saved, reverse=True)
    combined = recipe
    fields: dict[str, Any] = {}
    left_out: list[str] = []
    for _, change in options:
        # Some exclude each other: the one that saves more comes first.
        if accepts({**fields, **change.fields}):
            combined = _merge(recipe, combined, change.recipe)
            fields = {**fields, **change.fields}
        else:
            left_out.append(change.words)
    advice = [advice for advice, _ in options]
    if len(options) - len(left_out) > 1:
        but = f" but {' and '.join(left_out)}" if left_out else ""
        advice.append(advise(f"all of these together{but}", combined))
    return advice


def _list_changes(footprint: Footprint, recipe: Recipe, half: PrecisionName) -> Iterator[_Change]:
    if not recipe.is_checkpointed:
        yield _switch_on("train.gradient_checkpointing", replace(recipe, is_checkpointed=True))
    if recipe.precision == "fp32":
        name: PrecisionName = half if recipe.device == "cuda" else "bf16"
        yield _Change(f"train.precision: {name}", {"train.precision": name}, replace(recipe, precision=name))
    if not recipe.is_eight_bit:
        yield _Change(
            f"train.optimizer: {ADAMW_8BIT}",
            {"train.optimizer": ADAMW_8BIT},
            replace(recipe, is_eight_bit=True),
        )
    if recipe.device == "cuda" and footprint.freezes_base and not (recipe.is_four_bit or recipe.is_offloaded):
        if footprint.frozen_matrices:
            yield _Change("method.name: qlora", {"method.name": "qlora"}, replace(recipe, is_four_bit=True))
        if footprint.largest_block:
            yield _switch_on("train.offload", replace(recipe, is_offloaded=True))
    if recipe.rows > 1:
        yield _shrink_batch(recipe)


def _switch_on(field: str, recipe: Recipe) -> _Change:
    return _Change(f"{field}: true", {field: True}, recipe)


def _shrink_batch(recipe: Recipe) -> _Change:
    """Divide the rows by as little as possible, so that accumulated batches equal the former batch."""
    parts = next(number for number in range(2, recipe.rows + 1) if recipe.rows % number == 0)
    smaller = replace(recipe, rows=recipe.rows // parts)
    batch = smaller.rows * recipe.processes
    times = "twice" if parts == 2 else f"{parts} times"
    return _Change(
        f"train.batch_size: {batch}, and {times} the gradient_accumulation",
        {"train.batch_size": batch},
        smaller,
    )


def _merge(original: Recipe, combined: Recipe, changed: Recipe) -> Recipe:
    """Add the fields that a change changed."""
    differing = {
        name: getattr(changed, name)
        for name in Recipe.__dataclass_fields__
        if getattr(changed, name) != getattr(original, name)
    }
    return replace(combined, **differing)
