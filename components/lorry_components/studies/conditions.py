"""The conditions of machine and installation that decide the result of a trial, besides its recipe."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from pydantic import JsonValue

from lorry_components.tasks.definition import find_task_type
from lorry_components.training.setup.precision import Hardware, choose_task_precision, detect_hardware
from lorry_components.training.training_summary import read_versions
from lorry_registry.errors import TrainingError
from lorry_registry.tasks.task_spec import TaskSpec


def find_hardware() -> Hardware:
    """Return the hardware that trials on this machine will use.

    Asking a GPU for its name takes some hundred MiB of it until the process ends, so another process asks.
    """
    import torch

    if not torch.cuda.device_count():
        return detect_hardware()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(detect_hardware).result()


def describe_conditions(spec: TaskSpec, hardware: Hardware) -> dict[str, JsonValue]:
    """Return the device, the number format and the versions of libraries that a task is trained with."""
    try:
        precision: str = choose_task_precision(spec, hardware).name
    except TrainingError:
        # The trial itself will report that this device does not compute in it.
        precision = spec.train.precision
    return {
        "device": hardware.name,
        "precision": precision,
        "libraries": dict(read_versions(find_task_type(spec))),
    }
