"""In this room a base is one that generates, and a task is on restaurants."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lorry_registry.tasks.task_spec import TaskSpec


@pytest.fixture(scope="session")
def tiny_base(generator_base: Callable[[str], Path]) -> Callable[[str], Path]:
    return generator_base


@pytest.fixture(scope="session")
def make_base(make_generator_base: Callable[[str], Path]) -> Callable[[str], Path]:
    return make_generator_base


@pytest.fixture(scope="session")
def make_spec(make_generator_spec: Callable[..., TaskSpec]) -> Callable[..., TaskSpec]:
    return make_generator_spec
