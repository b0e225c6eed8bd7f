"""In this room a task is one to plan."""

from collections.abc import Callable

import pytest

from lorry_registry.tasks.task_spec import TaskSpec


@pytest.fixture(scope="session")
def make_spec(make_plan_spec: Callable[..., TaskSpec]) -> Callable[..., TaskSpec]:
    return make_plan_spec
