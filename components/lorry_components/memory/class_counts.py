"""The number of a task's classes, if it is cheap to find out: it decides the size of the head."""

from lorry_components.data.data_card import list_labels
from lorry_components.data.reading import read_source
from lorry_components.data.sources.local import list_local_files
from lorry_components.tasks.definition import find_task_type
from lorry_registry.errors import LorryError
from lorry_registry.tasks.task_spec import TaskSpec

# Reading this much takes about a second.
_MOST_BYTES = 32 * 2**20


def find_classes(spec: TaskSpec) -> tuple[str, ...] | None:
    """Return the classes in local data of at most 32 MiB; None for other data or a task type without classes.

    Faults of the data are left to the step that prepares it.
    """
    task_type = find_task_type(spec)
    if not task_type.data_form.has_classes or not spec.data.is_local:
        return None
    try:
        files = list_local_files(spec.data.source)
        if sum((files.folder / name).stat().st_size for name in files.names) > _MOST_BYTES:
            return None
        return list_labels(read_source(spec.data, task_type).parts)
    except (LorryError, OSError):
        return None
