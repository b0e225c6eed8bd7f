"""Whether a task works on its base, and the task type and method of a checked task."""

from collections.abc import Iterator, Sequence
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
from lorry_components.tasks.definition import read_options
from lorry_registry.errors import BaseModelError, Fault, InvalidTaskError, TrainingError, raise_together
from lorry_registry.task_spec import TaskSpec, TrainSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def find_task_type(spec: TaskSpec) -> TaskType:
    """Return the task type of a checked task."""
    return TASK_TYPES[spec.kind](InputForm.of(spec))


def find_method(spec: TaskSpec) -> Method:
    """Return the method of a checked task, with its options.

    Raises:
        InvalidTaskError: The task was not checked, and its options have faults; all are listed.
    """
    result = read_options(spec.method)
    if result.faults:
        raise InvalidTaskError(spec.name, result.faults, todo="correct these fields and try again")
    return METHODS[spec.method.name](result.options, TASK_TYPES[spec.kind].peft_task_type)


def check_bases(specs: Sequence[TaskSpec]) -> None:
    """Check that all tasks work on their bases, as far as the bases are on this machine.

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
            # The base may be on the machine that trains, which reports it if it is not.
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
    """Check that a task works on a base, from the base's configuration alone.

    Raises:
        BaseModelError: transformers does not know the base's architecture, or cannot build it.
        InvalidTaskError: The task does not work on it; all reasons are listed.
    """
    method = find_method(spec)
    task_type = find_task_type(spec)
    if task_type.reads_images:
        faults = [*task_type.check_folder(folder)]
        # The other checks need a UNet, which a folder with faults may not contain.
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
    """Check options that treat a base block by block."""
    wanted = [name for name in ("offload", "cache_frozen_layers") if getattr(train, name)]
    if not wanted:
        return
    if train.cache_frozen_layers and config.is_encoder_decoder:
        yield Fault(
            "train.cache_frozen_layers", "is for one stack of layers, and this base has two", "leave it out"
        )
    try:
        find_layers(build_base_skeleton(config))
    except TrainingError as error:
        for name in wanted:
            yield Fault(f"train.{name}", error.what, "leave it out")


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
            "it is a pipeline that draws images, and the task needs a model of text",
            where=str(folder),
            todo="name a model of text; a pipeline is a base for kind image-generation",
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
    """Return the fields of a task's train section that do not suit its task type, method or each other."""
    train = spec.train
    if train.gradient_checkpointing and not method.survives_checkpointing:
        yield Fault("train.gradient_checkpointing", f"{method.name} does not work with it", "leave it out")
    if train.offload and not method.freezes_base:
        yield Fault(
            "train.offload",
            f"does not work with {method.name}, which trains the base's own weights",
            "leave it out",
        )
    if train.offload and method.holds_four_bits:
        yield Fault("train.offload", "weights in four bits cannot be divided", "leave it out")
    if train.offload and train.cache_frozen_layers:
        yield Fault("train.offload", "does not work with cache_frozen_layers", "leave one of the two out")
    if not train.packing:
        return
    if task_type.predicts_next and method.count_added_tokens():
        yield Fault(
            "train.packing",
            f"{method.name} puts its tokens before the first sequence only",
            "leave it out",
        )
    if train.cache_frozen_layers:
        yield Fault(
            "train.packing", "packed rows change every epoch, so that cache_frozen_layers can keep none"
        )


def _check_length(spec: TaskSpec, method: Method, config: Any) -> Iterator[Fault]:
    added, positions = method.count_added_tokens(), count_positions(config)
    if positions is None or spec.data.max_length + added <= positions:
        return
    beside = f" and {added} of {spec.method.name}" if added else ""
    yield Fault(
        "data.max_length",
        f"{spec.data.max_length} tokens of text{beside} are more than the {positions} positions of the base",
        f"write max_length: {positions - added} or less" if added < positions else "write fewer tokens",
    )
