"""The papers' tables of trained parameters and of memory, beside ours.

A row whose method exists here is counted on the real modules, on the meta device; any other, by its closed
form (:mod:`~lorry_components.reference.closed_forms`). Once ``METHODS`` has a method with its row's options,
the row is counted on its modules without a change here.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lorry_components.memory.activations import measure_activations
from lorry_components.memory.architecture import (
    Architecture,
    adapt_architecture,
    build_architecture,
    build_configuration,
)
from lorry_components.memory.diffusion_pipeline import read_known_pipeline
from lorry_components.memory.estimates import Estimate, Recipe, estimate_training
from lorry_components.memory.gpus import DEVICES
from lorry_components.memory.plan import make_footprint
from lorry_components.methods import METHODS
from lorry_components.models.configuration import BaseConfiguration, read_known_configurations
from lorry_components.models.diffusers_models import has_diffusers
from lorry_components.models.dimensions import read_dimensions
from lorry_components.reference.dreambooth import measure_dreambooth
from lorry_components.reference.entries import (
    COUNTS,
    IMAGE_MEMORY,
    IMAGE_REASON,
    MEMORY,
    OFFLOAD_REASON,
    PIPELINE,
    TASK_TYPES,
    TWO_STACKS,
    Entry,
)
from lorry_registry.errors import TrainingError
from lorry_registry.manifest import ParameterCounts
from lorry_registry.sizes import GIB, format_in

# The runs of the memory table: 8 rows cut to 64 tokens, and answers such as "no complaint" in 3.
_ROWS, _TOKENS, _ANSWER_TOKENS = 8, 64, 3
_PUBLISHED_DEVICE = next(device for device in DEVICES if device.name == "A100 80 GB")


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A published figure and ours.

    Attributes:
        name: What was trained, on which base.
        method: The method's name in task files.
        trainable_parameters: Ours, without the head.
        total_parameters: Of the model with its head, and with the adapter if its modules were counted.
        is_closed_form: Whether the closed form was counted, because the method does not exist here.
        published: The published count as a number; None: this row is about memory.
        published_text: The figure as it is printed there.
        memory_gib: Ours by the formula, in GiB; None: this row is about parameters.
        memory_range_gib: Ours from low to high, with what the process and its allocator add.
        published_gib: The published peak; None: it ran out of memory, or none is published.
        difference: Ours over the published figure, less 1; None: there is none to compare with.
        agrees: Whether our count rounds to the printed one, our memory is within a tenth of it, or does not
            fit where the published run ran out of memory.
        reason: Why it differs, or what is compared; why it could not be planned.
        is_planned: Whether ours could be computed; if not, there are no figures of ours.
    """

    name: str
    method: str
    trainable_parameters: int
    total_parameters: int
    is_closed_form: bool
    published: float | None
    published_text: str
    memory_gib: float | None
    memory_range_gib: tuple[float, float] | None
    published_gib: float | None
    difference: float | None
    agrees: bool
    reason: str
    is_planned: bool = True

    def describe(self) -> dict[str, Any]:
        """Return it as plain values."""
        return dataclasses.asdict(self)


def list_published_rows() -> list[PublishedRow]:
    """Compute the published rows: those of the parameter tables first, then those of the memory tables.

    Those about images are left out if diffusers is not installed. A row that fails, for example because a
    version of a library builds its model differently, says why and does not stop the others.
    """
    totals: dict[tuple[str, str], int] = {}
    images = IMAGE_MEMORY if has_diffusers() else ()
    return [
        *(_try_row(_name_count(entry), entry.method, _count_row, entry, totals) for entry in COUNTS),
        *(
            _try_row(_name_run(entry[0], entry[2], is_offloaded=entry[3]), entry[2], _measure_row, *entry)
            for entry in MEMORY
        ),
        *(
            _try_row(
                _name_image_run(entry[0], is_checkpointed=entry[1]), entry[0], _measure_image_row, *entry
            )
            for entry in images
        ),
    ]


def _try_row(name: str, method: str, compute: Callable[..., PublishedRow], *arguments: Any) -> PublishedRow:
    try:
        return compute(name, *arguments)
    except Exception as error:  # noqa: BLE001 - the other rows are computed all the same
        message = str(error).partition("\n")[0]
        return PublishedRow(
            name=name,
            method=method,
            trainable_parameters=0,
            total_parameters=0,
            is_closed_form=False,
            published=None,
            published_text="",
            memory_gib=None,
            memory_range_gib=None,
            published_gib=None,
            difference=None,
            agrees=False,
            reason=f"not planned: {type(error).__name__}: {message}",
            is_planned=False,
        )


def parse_count(text: str) -> tuple[float, float]:
    """Return the number that a paper prints, such as ``0.35M``, and half of its last digit's worth."""
    unit = {"M": 1e6, "B": 1e9}.get(text[-1:], 1.0)
    digits = text.rstrip("MB").replace(",", "")
    decimals = len(digits.partition(".")[2])
    return float(digits) * unit, 0.5 * unit / 10**decimals


def _count_row(name: str, entry: Entry, totals: dict[tuple[str, str], int]) -> PublishedRow:
    """Count what a row trains; ``totals`` remembers the models whose methods do not exist here."""
    base = BaseConfiguration(read_known_configurations()[entry.base], entry.base)
    parameters = _count_modules(entry, base)
    if parameters is not None:
        return _describe_count(name, entry, parameters.adapter, parameters.total, is_closed_form=False)
    model = (entry.base, entry.model_class)
    if model not in totals:
        architecture = _build(base, entry.model_class)
        totals[model] = sum(parameter.numel() for parameter in architecture.model.parameters())
    dimensions = read_dimensions(base.values)
    assert entry.count is not None
    assert dimensions is not None
    return _describe_count(name, entry, entry.count(dimensions), totals[model], is_closed_form=True)


def _name_count(entry: Entry) -> str:
    return " ".join(filter(None, (_shorten(entry.base), entry.method, entry.variant)))


def _name_run(base: str, method: str, *, is_offloaded: bool) -> str:
    return f"{_shorten(base)} {method}" + (", offload" if is_offloaded else "")


def _name_image_run(method: str, *, is_checkpointed: bool) -> str:
    return f"{_shorten(PIPELINE)} {method}" + (", checkpointing" if is_checkpointed else "")


def _count_modules(entry: Entry, base: BaseConfiguration) -> ParameterCounts | None:
    """Count on the real modules; None where the method does not exist here, or not for this row."""
    method_class = METHODS.get(entry.method)
    if method_class is None or method_class.read_options(entry.options).faults:
        return None
    method = method_class(entry.options, TASK_TYPES[entry.model_class])
    try:
        return adapt_architecture(method, _build(base, entry.model_class)).parameters
    except TrainingError:
        if entry.count is None:
            raise
        return None


def _describe_count(
    name: str, entry: Entry, trained: int, total: int, *, is_closed_form: bool
) -> PublishedRow:
    published, agrees, difference = None, True, None
    if entry.published:
        published, tolerance = parse_count(entry.published)
        agrees = abs(trained - published) <= tolerance
        difference = trained / published - 1
    return PublishedRow(
        name=name,
        method=entry.method,
        trainable_parameters=trained,
        total_parameters=total,
        is_closed_form=is_closed_form,
        published=published,
        published_text=entry.published,
        memory_gib=None,
        memory_range_gib=None,
        published_gib=None,
        difference=difference,
        agrees=agrees,
        reason=entry.reason,
    )


def _measure_row(
    name: str,
    base_name: str,
    model_class: str,
    method_name: str,
    is_offloaded: bool,
    published: float | None,
) -> PublishedRow:
    base = BaseConfiguration(read_known_configurations()[base_name], base_name)
    method = METHODS[method_name]({"r": 8} if method_name == "lora" else {}, TASK_TYPES[model_class])
    # Eager attention and fp32, as these runs were.
    adapted = adapt_architecture(method, _build(base, model_class, attention="eager"))
    activations = measure_activations(
        adapted.model,
        rows=_ROWS,
        tokens=_TOKENS,
        target_tokens=_ANSWER_TOKENS if model_class == TWO_STACKS else None,
        on_cuda=True,
    )
    estimate = estimate_training(
        make_footprint(adapted, method, activations, _ROWS),
        Recipe("cuda", "fp32", _ROWS, is_offloaded=is_offloaded),
    )
    reason = OFFLOAD_REASON if is_offloaded else ""
    if published is None:
        reason = f"ours is above the {format_in(_PUBLISHED_DEVICE.usable, 'GiB')} of an A100 80 GB"
    return _describe_memory(
        name,
        method_name,
        adapted.parameters,
        estimate,
        published,
        reason=reason,
    )


def _measure_image_row(name: str, method_name: str, is_checkpointed: bool, published: float) -> PublishedRow:
    parameters, estimate = measure_dreambooth(
        read_known_pipeline(PIPELINE), method_name, is_checkpointed=is_checkpointed
    )
    return _describe_memory(name, method_name, parameters, estimate, published, reason=IMAGE_REASON)


def _describe_memory(
    name: str,
    method_name: str,
    parameters: ParameterCounts,
    estimate: Estimate,
    published: float | None,
    *,
    reason: str,
) -> PublishedRow:
    ours = estimate.formula / GIB
    return PublishedRow(
        name=name,
        method=method_name,
        trainable_parameters=parameters.trained,
        total_parameters=parameters.total,
        is_closed_form=False,
        published=None,
        published_text=f"{published:g} GB" if published else "out of memory",
        memory_gib=ours,
        memory_range_gib=(estimate.low / GIB, estimate.high / GIB),
        published_gib=published,
        difference=ours / published - 1 if published else None,
        agrees=abs(ours / published - 1) <= 0.1 if published else estimate.low > _PUBLISHED_DEVICE.usable,
        reason=reason,
    )


def _build(base: BaseConfiguration, model_class: str, *, attention: str | None = None) -> Architecture:
    return build_architecture(base, build_configuration(base), model_class, attention=attention)


def _shorten(base: str) -> str:
    return base.rpartition("/")[2]
