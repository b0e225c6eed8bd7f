"""The versions of the code that decides what is learned, so that a change of it is known by its adapters.

Each step whose code decides the result has a version here, and each task type and each method in its class
(``code_version``). Raise a version when the same task, on the same data and base, would give another adapter;
adapters of the former version are stale then. A change that gives the same adapters leaves it. Neither how an
adapter is evaluated nor how it is judged is part of what it is.

``tests/unit/components/tasks/test_code_versions.py`` hashes the source of each part, and fails when a part
has changed and its version has not, until someone says that nothing else is learned.
"""

from collections.abc import Mapping

from lorry_components.methods import METHODS
from lorry_components.task_types import TASK_TYPES
from lorry_registry.tasks.task_spec import TaskSpec

STEP_VERSIONS: Mapping[str, int] = {
    "prepare_data": 1,
    # 2: dropout is torch's own, and classes begin with less of a fitted head.
    "finetune": 2,
}


PROBE_VERSION = 3
"""Of a training that begins with a fitted head, which learns slowly since 2, and whose end is given up only
where a paired test finds it worse on validation since 3.

Adapters without it are the end of such a training, however bad.
"""


def list_code_versions(spec: TaskSpec) -> dict[str, int]:
    """Return the versions of all code that decides what a checked task learns: part -> version."""
    return {
        **{f"step.{name}": version for name, version in STEP_VERSIONS.items()},
        **({"head.probe": PROBE_VERSION} if spec.head is not None and spec.head.init == "probe" else {}),
        f"kind.{spec.kind}": TASK_TYPES[spec.kind].code_version,
        f"method.{spec.method.name}": METHODS[spec.method.name].code_version,
    }
