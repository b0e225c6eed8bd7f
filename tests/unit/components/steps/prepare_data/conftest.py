"""In this room a task is its data, and nothing else of it matters."""

from collections.abc import Callable

import pytest

from lorry_registry.tasks.task_spec import TaskSpec


@pytest.fixture
def make_spec(make_source_spec: Callable[..., TaskSpec]) -> Callable[..., TaskSpec]:
    return make_source_spec
