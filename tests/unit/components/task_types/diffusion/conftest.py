"""In this room a task is on images."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lorry_registry.tasks.task_spec import TaskSpec


@pytest.fixture(scope="session")
def pipeline(diffusion_pipeline: Path) -> Path:
    return diffusion_pipeline


@pytest.fixture
def make_spec(make_image_spec: Callable[..., TaskSpec]) -> Callable[..., TaskSpec]:
    return make_image_spec
