"""A tiny base with real weights, tasks on it, and the published rows, which take seconds, computed once."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import logging as transformers_logging

from lorry_components.reference.published_rows import PublishedRow, list_published_rows
from lorry_registry.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]


@pytest.fixture(autouse=True, scope="session")
def quiet_transformers() -> None:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("mlflow").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def make_spec(tiny_bert: Path, tiny_rows: Path) -> MakeSpec:
    """Return a function that writes a classification down; sections that are given are laid over it."""

    def make(method: Mapping[str, Any] | None = None, **sections: Any) -> TaskSpec:
        document: dict[str, Any] = {
            "name": "tiny",
            "kind": "text-classification",
            "base": {"model": str(tiny_bert)},
            "data": {"source": str(tiny_rows), "split": {"validation": 0.2, "test": 0.2}, "max_length": 32},
            "method": method or {"name": "lora", "r": 4, "targets": ["query", "value"]},
            "train": {"steps": 1, "batch_size": 8, "precision": "fp32"},
        }
        for name, given in sections.items():
            document[name] = document.get(name, {}) | given if isinstance(given, dict) else given
        return TaskSpec.model_validate(document)

    return make


@pytest.fixture(scope="session")
def published_rows() -> dict[str, PublishedRow]:
    return {row.name: row for row in list_published_rows()}
