"""The plan of one task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lorry_components.memory.acceptance import Accept, accept_changes
from lorry_components.memory.activations import Activations, measure_activations, measure_cache
from lorry_components.memory.advice import Advice, list_advice
from lorry_components.memory.architecture import (
    AdaptedArchitecture,
    adapt_architecture,
    build_architecture,
    build_configuration,
)
from lorry_components.memory.diffusion_pipeline import (
    adapt_unet,
    estimate_drawing,
    measure_unet,
    read_pipeline,
)
from lorry_components.memory.estimates import (
    Estimate,
    Footprint,
    Recipe,
    estimate_host,
    estimate_inference,
    estimate_training,
)
from lorry_components.memory.expectations import describe_expectation
from lorry_components.memory.gpus import Device, find_smallest_device, recognise_device
from lorry_components.memory.upper_bounds import bound_activations
from lorry_components.methods import Method
from lorry_components.models.configuration import BaseConfiguration, read_configuration
from lorry_components.models.dimensions import read_dimensions
from lorry_components.models.dropout_fields import list_dropouts
from lorry_components.task_types.text_task import PassLengths, TextTaskType
from lorry_components.tasks.definition import find_method, find_task_type
from lorry_components.training.setup.length import LEAST_STEPS, SMALL_BATCH, may_take_small_batches
from lorry_components.training.setup.optimizers import ADAMW_8BIT
from lorry_components.training.setup.precision import (
    Hardware,
    Precision,
    PrecisionName,
    choose_precision,
    detect_processor,
)
from lorry_registry.errors import BaseModelError, LorryError
from lorry_registry.manifest import ParameterCounts
from lorry_registry.tasks.task_spec import TaskSpec

_ASSUMED_CLASSES = ("0", "1")


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """What a task would take.

    Attributes:
        task: Its name.
        method: How its base is adapted.
        base: Where its base's configuration was read.
        parameters: The trained ones, the head's counted separately, and all of the model.
        adapter_bytes: Size of the adapter's weights file; for ``full``, if every tensor changes.
        rows: Texts in a forward pass of one process.
        tokens: The longest text, in tokens.
        device: Where it is trained: ``cpu`` or ``cuda``.
        precision: The number format that it is trained in there.
        training: Memory of the device, by part; of each, where several processes train.
        host: Host memory of a training on GPUs, for all processes together; None on a CPU, where
            ``training`` is host memory.
        inference: Memory of predicting there, by part.
        on_gpu: Memory of training on a GPU.
        gpu_precision: The number format that it is trained in there.
        smallest_device: The smallest GPU that is large enough for ``on_gpu``; None if none is.
        advice: Changes that would take less where it is trained; on a GPU, if none is large enough.
        notes: Assumptions, and what to expect of the method.
        side: Width and height of its images, in pixels, ``rows`` of them in a forward pass; None for a task
            about texts.
        processes: How many train together, each on a GPU of its own.
    """

    task: str
    method: str
    base: str
    parameters: ParameterCounts
    adapter_bytes: int
    rows: int
    tokens: int
    device: str
    precision: str
    training: Estimate
    host: Estimate | None
    inference: Estimate
    on_gpu: Estimate
    gpu_precision: str
    smallest_device: Device | None
    advice: tuple[Advice, ...]
    notes: tuple[str, ...]
    side: int | None = None
    processes: int = 1


def plan_task(
    spec: TaskSpec, *, labels: Sequence[str] | None = None, base: BaseConfiguration | None = None
) -> TaskPlan:
    """Plan a task: no weights are read and nothing is computed.

    Args:
        spec: A checked task.
        labels: The classes, if they are known; two are assumed otherwise.
        base: The base's configuration, if it has been read already.

    Raises:
        BaseModelError: The base's configuration cannot be had, transformers does not know it, or it cannot be
            planned for another reason.
        TrainingError: The method does not fit this base.
    """
    task_type, method = find_task_type(spec), find_method(spec)
    try:
        return task_type.match_family(
            text=lambda text: _plan_texts(spec, text, method, labels, base or read_configuration(spec.base)),
            diffusion=lambda _: _plan_images(spec, method),
        )
    except LorryError:
        raise
    except Exception as error:
        # Families read and divide by different fields, and a new one may do so in yet another way.
        raise BaseModelError(
            f"it cannot be planned: {type(error).__name__}: {error}".splitlines()[0],
            where=spec.base.model,
            todo="run it without a plan: lorry run TASK.yaml --force",
        ) from error


def _plan_texts(
    spec: TaskSpec,
    task_type: TextTaskType,
    method: Method,
    labels: Sequence[str] | None,
    base: BaseConfiguration,
) -> TaskPlan:
    """Plan a task about texts."""
    notes: list[str] = []
    if task_type.data_form.has_classes and labels is None:
        labels = _ASSUMED_CLASSES
        notes.append("two classes are assumed: the data was not read")
    device = "cuda" if spec.resources.count else "cpu"
    tokens = _limit_tokens(spec.data.max_length, method, base)
    if tokens < spec.data.max_length:
        notes.append(f"the base has room for {tokens} tokens of text, fewer than data.max_length")
    shown = recognise_device(spec.resources.node_selector)
    here = _choose_precision(spec, device, shown)
    on_gpu = _choose_precision(spec, "cuda", shown)
    # A processor and a GPU may choose the same precision, but attention keeps different things on each.
    trials = {
        trial: _build_footprint(spec, base, task_type, method, labels, tokens, *trial)
        for trial in {(here, device), (on_gpu, "cuda")}
    }
    adapted, footprint = trials[here, device]
    gpu_footprint = trials[on_gpu, "cuda"][1]
    if not footprint.activations.layers:
        notes.append("activations are an upper bound from the base's sizes: its code reads tensor values")
    if method.trains_in_steps and may_take_small_batches(spec.train):
        notes.append(f"where rows are too few for {LEAST_STEPS} steps, batches are of {SMALL_BATCH}")
    if expectation := describe_expectation(spec, lambda: base):
        notes.append(expectation)
    recipe = _write_recipe(spec, method, device, here)
    adviser = _Adviser(accept_changes(spec, base), _find_half(shown))
    estimate = estimate_training if method.trains_in_steps else estimate_inference
    on_cuda = replace(recipe, device="cuda", precision=on_gpu.name)
    gpu = _look_at_gpus(gpu_footprint, on_cuda, adviser if method.trains_in_steps else None)
    if device == "cpu" and spec.train.precision == "auto":
        notes.append(f"on a processor like this machine's, precision auto takes {here.name}")
    if device == "cuda" and here.name == "bf16" != adviser.half and shown is not None:
        notes.append(f"{shown.name} multiplies no bf16 in hardware: precision auto takes fp16 there")
    return TaskPlan(
        task=spec.name,
        method=spec.method.name,
        base=base.origin,
        parameters=adapted.parameters,
        adapter_bytes=adapted.adapter_bytes,
        rows=recipe.rows,
        tokens=tokens,
        device=device,
        precision=here.name,
        training=estimate(footprint, recipe),
        host=estimate_host(footprint, max(1, spec.resources.count)) if device == "cuda" else None,
        inference=estimate_inference(footprint, recipe),
        on_gpu=gpu.estimate,
        gpu_precision=on_gpu.name,
        smallest_device=gpu.smallest,
        advice=_choose_advice(adviser, gpu, footprint, recipe) if method.trains_in_steps else (),
        notes=tuple(notes),
        processes=recipe.processes,
    )


@dataclass(frozen=True, slots=True)
class _OnGpus:
    """What training takes on a GPU, the smallest that is large enough, and advice if none is."""

    estimate: Estimate
    smallest: Device | None
    advice: tuple[Advice, ...] | None


def _write_recipe(spec: TaskSpec, method: Method, device: str, precision: Precision) -> Recipe:
    train = spec.train
    return Recipe(
        device,
        precision.name,
        _divide_batch(spec),
        is_checkpointed=train.gradient_checkpointing,
        is_eight_bit=train.optimizer == ADAMW_8BIT,
        is_four_bit=method.holds_four_bits,
        is_offloaded=train.offload,
        processes=spec.resources.processes,
    )


def _divide_batch(spec: TaskSpec) -> int:
    """Return the rows of a process in a forward pass: each batch is divided among the processes."""
    return -(-spec.train.batch_size // spec.resources.processes)


@dataclass(frozen=True, slots=True)
class _Adviser:
    """What advice depends on besides memory: what validation accepts, and what the GPU is fast in."""

    accepts: Accept
    half: PrecisionName

    def list_advice(self, footprint: Footprint, recipe: Recipe) -> tuple[Advice, ...]:
        return tuple(list_advice(footprint, recipe, self.accepts, half=self.half))


def _find_half(shown: Device | None) -> PrecisionName:
    return "bf16" if shown is None or shown.has_bf16 else "fp16"


def _choose_advice(
    adviser: _Adviser, gpu: _OnGpus, footprint: Footprint, recipe: Recipe
) -> tuple[Advice, ...]:
    return adviser.list_advice(footprint, recipe) if gpu.advice is None else gpu.advice


def _look_at_gpus(footprint: Footprint, recipe: Recipe, adviser: _Adviser | None) -> _OnGpus:
    """Estimate a training on GPUs; without an adviser there is none, and the base only reads the texts."""
    if adviser is None:
        estimate = estimate_inference(footprint, recipe)
        return _OnGpus(estimate, find_smallest_device(estimate.high), ())
    estimate = estimate_training(footprint, recipe)
    smallest = find_smallest_device(estimate.high)
    return _OnGpus(estimate, smallest, None if smallest else adviser.list_advice(footprint, recipe))


def _plan_images(spec: TaskSpec, method: Method) -> TaskPlan:
    """Plan a task that draws images."""
    pipeline = read_pipeline(spec.base)
    adapted = adapt_unet(pipeline, method)
    around = pipeline.count_around()
    device = "cuda" if spec.resources.count else "cpu"
    shown = recognise_device(spec.resources.node_selector)
    here, on_gpu = _choose_precision(spec, device, shown), _choose_precision(spec, "cuda", shown)
    rows = _divide_batch(spec)

    def measure(where: str) -> Footprint:
        activations = measure_unet(adapted.model, pipeline, rows=rows, on_cuda=where == "cuda")
        return make_footprint(adapted, method, activations, rows)

    gpu_footprint = measure("cuda")
    footprint = gpu_footprint if device == "cuda" else measure(device)
    # In host memory all parts are together; on a GPU the UNet is alone while it is trained.
    whole = replace(footprint, frozen=footprint.frozen + around)
    recipe = _write_recipe(spec, method, device, here)
    adviser = _Adviser(accept_changes(spec, None), _find_half(shown))
    gpu = _look_at_gpus(gpu_footprint, replace(recipe, device="cuda", precision=on_gpu.name), adviser)
    return TaskPlan(
        task=spec.name,
        method=spec.method.name,
        base=pipeline.origin,
        parameters=adapted.parameters,
        adapter_bytes=adapted.adapter_bytes,
        rows=rows,
        tokens=min(spec.data.max_length, pipeline.positions),
        device=device,
        precision=here.name,
        training=estimate_training(footprint if device == "cuda" else whole, recipe),
        host=estimate_host(whole, recipe.processes) if device == "cuda" else None,
        inference=estimate_drawing(pipeline, footprint, around=around, device=device),
        on_gpu=gpu.estimate,
        gpu_precision=on_gpu.name,
        smallest_device=gpu.smallest,
        advice=adviser.list_advice(footprint, recipe) if gpu.advice is None else gpu.advice,
        notes=(f"parameters are those of the UNet; the parts around it have {around:,} more, all frozen",),
        side=pipeline.side,
        processes=recipe.processes,
    )


def _build_footprint(
    spec: TaskSpec,
    base: BaseConfiguration,
    task_type: TextTaskType,
    method: Method,
    labels: Sequence[str] | None,
    tokens: int,
    precision: Precision,
    device: str,
) -> tuple[AdaptedArchitecture, Footprint]:
    config = build_configuration(base, **task_type.describe_head(labels))
    for name, value in list_dropouts(spec.train, config).items():
        setattr(config, name, value)
    loader = task_type.find_loader(config, base.pooling)
    architecture = build_architecture(base, config, loader, attention=precision.attention)
    # What the base has weights for is not known where they are not on this machine.
    newly_initialized = task_type.choose_newly_initialized(architecture.newly_initialized)
    adapted = adapt_architecture(method, replace(architecture, newly_initialized=newly_initialized))
    if not method.trains_in_steps:
        # What its base computes is seen by what autograd would keep of it.
        adapted.model.requires_grad_(requires_grad=True)
    rows, lengths = _divide_batch(spec), task_type.describe_pass(config, tokens)
    activations = _measure(adapted, base, rows, tokens, lengths, on_cuda=device == "cuda")
    footprint = make_footprint(adapted, method, activations, rows)
    if task_type.count_written_tokens():
        cache = measure_cache(config, rows=rows, tokens=tokens + (lengths.decoder or 0))
        scored = lengths.supervised or lengths.decoder or 1
        footprint = replace(footprint, scored=scored, cache=cache)
    return adapted, footprint


def make_footprint(
    adapted: AdaptedArchitecture, method: Method, activations: Activations, rows: int
) -> Footprint:
    """Gather what decides the memory of an adapted model."""
    trained = adapted.parameters.trained
    return Footprint(
        frozen=adapted.parameters.total - trained,
        trained=trained,
        frozen_matrices=adapted.frozen_matrices,
        freezes_base=method.freezes_base,
        copies_trained=method.copies_trained,
        activations=activations,
        rows=rows,
        wide_moments=adapted.wide_moments,
        outside_blocks=adapted.outside_blocks,
        largest_block=adapted.largest_block,
    )


def _limit_tokens(max_length: int, method: Method, base: BaseConfiguration) -> int:
    dimensions = read_dimensions(base.values)
    if dimensions is None or dimensions.positions is None:
        return max_length
    # Soft tokens take positions away from the text.
    soft = method.count_added_tokens()
    return max(1, min(max_length, dimensions.positions - soft))


def _choose_precision(spec: TaskSpec, device: str, shown: Device | None) -> Precision:
    """Choose as the fine-tuning step will, on a processor like this machine's."""
    if device == "cuda":
        has_bf16 = shown.has_bf16 if shown is not None else True
        hardware = Hardware("cuda", shown.name if shown else "a GPU", has_bf16, has_fp16=True)
    else:
        hardware = detect_processor()
    return choose_precision(spec.train.precision, hardware, max_length=spec.data.max_length)


def _measure(
    adapted: AdaptedArchitecture,
    base: BaseConfiguration,
    rows: int,
    tokens: int,
    lengths: PassLengths,
    *,
    on_cuda: bool,
) -> Activations:
    try:
        return measure_activations(
            adapted.model,
            rows=rows,
            tokens=tokens,
            target_tokens=lengths.decoder,
            supervised_tokens=lengths.supervised,
            on_cuda=on_cuda,
        )
    except Exception as error:
        dimensions = read_dimensions(base.values)
        if dimensions is None:
            raise BaseModelError(
                f"what a forward pass takes cannot be computed without weights: {error}".splitlines()[0],
                where=base.origin,
                todo="run it without a plan: lorry run TASK.yaml --force",
            ) from error
        longest = max(tokens, lengths.decoder or 0)
        bound = bound_activations(dimensions, base.values, rows=rows, tokens=longest)
        return Activations(kept=bound, layers=0, largest_layer=bound, outside=0, boundary=0, logits=0)
