"""A task file, checked as a whole: its fields, and what its kind and method make of them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_components.methods import METHODS, Method
from lorry_components.methods.peft.targets import TargetedMethod
from lorry_components.methods.soft_tokens.base import count_positions
from lorry_components.models.bases import PIPELINE_INDEX, find_base_folder
from lorry_components.models.blocks import build_skeleton as build_base_skeleton
from lorry_components.models.blocks import find_layers
from lorry_components.models.dropout_fields import check_dropouts
from lorry_components.task_types import TASK_TYPES, InputForm, TaskType
from lorry_components.task_types.diffusion.latent_diffusion import build_skeleton, read_part
from lorry_registry.errors import BaseModelError, Fault, InvalidTaskError, TrainingError, raise_together
from lorry_registry.task_document import suggest_name
from lorry_registry.task_loading import load_task
from lorry_registry.task_spec import DRAWING_FIELDS, GenerateSpec, TaskSpec, TrainSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_METHOD_FIELDS = frozenset({"name", "max_adapter_mib"})


def load_task_file(path: Path, overrides: Sequence[str] = ()) -> TaskSpec:
    """Read a task file and check all of it.

    Raises:
        InvalidTaskError: The file has faults; all are listed.
    """
    return load_task(path, overrides=overrides, checks=(check_task_type, check_method))


def find_task_type(spec: TaskSpec) -> TaskType:
    """Return the kind of a checked task."""
    return TASK_TYPES[spec.kind](InputForm.of(spec))


def find_method(spec: TaskSpec) -> Method:
    """Return the method of a checked task, with its options."""
    return METHODS[spec.method.name](spec.method.options, TASK_TYPES[spec.kind].peft_task_type)


def check_bases(specs: Sequence[TaskSpec]) -> None:
    """Check that each task's method works on its base, as far as the base is on this machine.

    Raises:
        InvalidTaskError: Some do not; all faults are listed.
    """
    errors: list[InvalidTaskError] = []
    for spec in specs:
        if not spec.base.is_package and not spec.base.is_folder:
            continue
        try:
            folder = find_base_folder(spec.base)
        except BaseModelError:
            # The base may lie on the machine that trains, which will say so if it does not.
            continue
        try:
            check_base(spec, folder)
        except BaseModelError as error:
            fault = Fault("base.model", error.what)
            errors.append(InvalidTaskError(_name_pair(spec), [fault], todo=error.todo))
        except InvalidTaskError as error:
            errors.append(error)
    raise_together(errors, "tasks")


def check_base(spec: TaskSpec, folder: Path) -> None:
    """Check that a task's method works on a base, from the base's configuration alone.

    Raises:
        BaseModelError: transformers does not know the base's architecture, or cannot build it.
        InvalidTaskError: It does not; all reasons are listed.
    """
    method = find_method(spec)
    task_type = find_task_type(spec)
    if task_type.reads_images:
        faults = [*task_type.check_folder(folder)]
        # The rest is asked of a UNet, which a folder with faults may not hold.
        faults += [] if faults else _check_unet(method, folder)
    else:
        config = load_config(folder)
        faults = [
            *task_type.check_base(config),
            *task_type.check_folder(folder),
            *method.check_base(config),
            *_check_length(spec, method, config),
            *check_dropouts(spec.train, config),
            *_check_blocks(spec.train, config),
            *(task_type.check_packing(config) if spec.train.packing else ()),
        ]
    faults += check_training(spec, task_type, method)
    if faults:
        raise InvalidTaskError(_name_pair(spec), faults, todo="correct these fields and try again")


def _name_pair(spec: TaskSpec) -> str:
    return f"{spec.name} on {spec.base.model}"


def _check_blocks(train: TrainSpec, config: "PretrainedConfig") -> Iterator[Fault]:
    """Check what treats a base block by block."""
    wanted = [name for name in ("offload", "cache_frozen_layers") if getattr(train, name)]
    if not wanted:
        return
    if train.cache_frozen_layers and config.is_encoder_decoder:
        yield Fault(
            "train.cache_frozen_layers", "is for one stack of layers, and this base has two; leave it out"
        )
    try:
        find_layers(build_base_skeleton(config))
    except TrainingError as error:
        for name in wanted:
            yield Fault(f"train.{name}", f"{error.what}; leave it out")


def _check_unet(method: Method, folder: Path) -> Iterator[Fault]:
    if isinstance(method, TargetedMethod):
        unet = build_skeleton("UNet2DConditionModel", read_part(folder, "unet", "config.json"))
        yield from method.check_model(unet)


def load_config(folder: Path) -> "PretrainedConfig":
    """Load the configuration of a base.

    Raises:
        BaseModelError: transformers does not know the base's architecture.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    if (folder / PIPELINE_INDEX).is_file():
        raise BaseModelError(
            "it is a pipeline that draws images, and this is for models of text",
            where=str(folder),
            todo="name a model of texts; a pipeline is a base for kind image-generation",
        )
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise BaseModelError(
            " ".join(f"transformers cannot read its config.json: {error}".split()),
            where=str(folder),
            todo="restore the base, or choose one of an architecture that this version knows",
        ) from error
    return config


def check_training(spec: TaskSpec, task_type: TaskType, method: Method) -> Iterator[Fault]:
    """Say what of a task's training section does not suit its kind or method."""
    train = spec.train
    if train.gradient_checkpointing and not method.survives_checkpointing:
        yield Fault("train.gradient_checkpointing", f"{method.name} does not work with it; leave it out")
    if train.offload and not method.freezes_base:
        yield Fault(
            "train.offload",
            f"does not work with {method.name}, which trains the base's own weights; leave it out",
        )
    if train.offload and method.holds_four_bits:
        yield Fault("train.offload", "weights in four bits cannot be divided; leave it out")
    if train.offload and train.cache_frozen_layers:
        yield Fault("train.offload", "does not work with cache_frozen_layers; leave one of the two out")
    if not train.packing:
        return
    if task_type.predicts_next and method.count_added_tokens():
        yield Fault(
            "train.packing", f"{method.name} puts its tokens before the first sequence only; leave it out"
        )
    if train.cache_frozen_layers:
        yield Fault("train.packing", "packed rows differ each time, and cache_frozen_layers keeps none")


def _check_length(spec: TaskSpec, method: Method, config: Any) -> Iterator[Fault]:
    added, positions = method.count_added_tokens(), count_positions(config)
    if positions is None or spec.data.max_length + added <= positions:
        return
    beside = f" and {added} of {spec.method.name}" if added else ""
    todo = f"write max_length: {positions - added} or less" if added < positions else "write fewer tokens"
    yield Fault(
        "data.max_length",
        f"{spec.data.max_length} tokens of text{beside} are more than the {positions} positions of the base; "
        + todo,
    )


def check_task_type(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Check that the kind exists and has the metrics that the task names."""
    name = document.get("kind")
    if not isinstance(name, str):
        return
    if name not in TASK_TYPES:
        yield Fault("kind", f"there is no kind {name!r}; {suggest_name(name, TASK_TYPES)}")
        return
    data = document.get("data")
    yield from _check_data(TASK_TYPES[name], data)
    yield from _check_soft_template(TASK_TYPES[name], data, document.get("method"))
    yield from _check_metrics(TASK_TYPES[name], document.get("evaluate"))
    yield from _check_generate(TASK_TYPES[name], document.get("generate"))
    if TASK_TYPES[name].reads_images:
        yield from _check_images(document)
    yield from _check_suits(TASK_TYPES[name], document.get("method"))


def _check_generate(task_type: type[TaskType], generate: object) -> Iterator[Fault]:
    """Say which fields are for texts where images are drawn, or for images where they are not."""
    for name in generate if isinstance(generate, Mapping) else ():
        if name in GenerateSpec.model_fields and (name in DRAWING_FIELDS) != task_type.reads_images:
            made = "texts" if task_type.reads_images else "images"
            yield Fault(f"generate.{name}", f"is for {made}, and not for {task_type.name}; leave it out")


def _check_images(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Say what of a task does not suit images."""
    data, train = document.get("data"), document.get("train")
    if isinstance(data, Mapping):
        if str(data.get("source", "")).startswith(("s3://", "hub:")):
            yield Fault("data.source", "must be a folder on this machine: images are read beside their table")
        if _has_pair(data):
            yield Fault("data.columns.text_pair", "has no use: an image has one prompt; leave it out")
    if not isinstance(train, Mapping):
        return
    for name in ("hidden_dropout", "attention_dropout", "cache_frozen_layers", "offload", "packing"):
        if train.get(name):
            yield Fault(f"train.{name}", "is for models of text; leave it out")


def _check_suits(task_type: type[TaskType], method: object) -> Iterator[Fault]:
    """Say whether a kind does not work with a method that there is."""
    name = method.get("name") if isinstance(method, Mapping) else None
    if task_type.methods is not None and name in METHODS and name not in task_type.methods:
        yield Fault(
            "method.name",
            f"{name} is made for models of text, and {task_type.name} trains a UNet; "
            f"choose {', '.join(sorted(task_type.methods))}",
        )


def _check_data(task_type: type[TaskType], data: object) -> Iterator[Fault]:
    if not isinstance(data, Mapping):
        return
    template = data.get("template")
    if task_type.reads_context and not _has_pair(data):
        yield Fault("data.columns.text_pair", f"is missing: {task_type.name} needs the column of the context")
    if isinstance(template, str | None):
        for told in task_type.check_template(template, has_pair=_has_pair(data)):
            yield Fault("data.template", told)


def _check_soft_template(task_type: type[TaskType], data: object, method: object) -> Iterator[Fault]:
    if not isinstance(data, Mapping) or not isinstance(method, Mapping):
        return
    soft_template, template = _list_options(method).get("template"), data.get("template")
    known = METHODS.get(str(method.get("name")))
    if known is None or "template" not in known.options_model.model_fields:
        return
    if not isinstance(soft_template, str) or any(known.check_options({"template": soft_template})):
        # Told by the method.
        return
    for told in task_type.check_soft_template(
        soft_template, template if isinstance(template, str) else None, has_pair=_has_pair(data)
    ):
        yield Fault("method.template", told)


def _has_pair(data: Mapping[str, Any]) -> bool:
    columns = data.get("columns")
    return isinstance(columns, Mapping) and columns.get("text_pair") is not None


def _check_metrics(task_type: type[TaskType], evaluate: object) -> Iterator[Fault]:
    if not isinstance(evaluate, Mapping):
        return
    name, known = task_type.name, task_type.metrics
    listed = evaluate.get("metrics") or ()
    if isinstance(listed, Sequence) and not isinstance(listed, str):
        for metric in listed:
            if isinstance(metric, str) and metric not in known:
                yield Fault(
                    "evaluate.metrics", f"{name} has no metric {metric!r}; {suggest_name(metric, known)}"
                )
    primary = evaluate.get("primary")
    if not isinstance(primary, str):
        return
    if primary not in known:
        yield Fault("evaluate.primary", f"{name} has no metric {primary!r}; {suggest_name(primary, known)}")
    if primary in task_type.error_metrics:
        yield Fault("evaluate.primary", f"of {primary!r} less is better; choose {task_type.primary!r}")


def check_method(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Check that the method exists and understands its options."""
    section = document.get("method")
    if not isinstance(section, Mapping) or not isinstance(section.get("name"), str):
        return
    name = section["name"]
    if name not in METHODS:
        yield Fault("method.name", f"there is no method {name!r}; {suggest_name(name, METHODS)}")
        return
    yield from METHODS[name].check_options(_list_options(section))


def _list_options(section: Mapping[str, Any]) -> Mapping[str, Any]:
    options = section.get("options", {key: section[key] for key in section if key not in _METHOD_FIELDS})
    return options if isinstance(options, Mapping) else {}
