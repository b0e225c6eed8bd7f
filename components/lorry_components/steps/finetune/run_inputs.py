"""The inputs of a training, as MLflow keeps them: the task file, the data card, the data sets."""

import json
from typing import Any

import yaml

from lorry_components.data.data_card import DataCard, NumberSummary
from lorry_components.methods import METHODS
from lorry_components.task_types import TASK_TYPES
from lorry_components.task_types.diffusion.base import DiffusionTaskType
from lorry_components.task_types.generation.base import GenerationTaskType
from lorry_components.tasks.definition import read_options
from lorry_components.training.setup.length import may_take_small_batches
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.mlflow.dataset_inputs import RunDataset
from lorry_registry.mlflow.views import OPTIONS_PARAMETER, describe_options
from lorry_registry.tasks.task_spec import TaskSpec
from lorry_registry.text.addresses import hide_secrets

TASK_ARTIFACT = "task.yaml"


def list_datasets(card: DataCard) -> list[RunDataset]:
    """Return the parts of prepared data as MLflow's data sets."""
    revision = {"revision": card.revision} if card.revision else {}
    return [
        RunDataset(
            name=card.task,
            part=part,
            source=card.source,
            digest=split.digest,
            rows=split.rows,
            columns={
                **dict.fromkeys(["text", "text_pair"] if card.columns.text_pair else ["text"], "string"),
                "label": "double" if isinstance(split.labels, NumberSummary) else "string",
            },
            profile={"words": split.words.model_dump(mode="json"), **revision},
        )
        for part, split in card.splits.items()
    ]


def list_parameters(spec: TaskSpec) -> dict[str, Any]:
    """Return the parameters of a checked task's training, by which people compare runs.

    They are the recipe with the base and every option of the method, also what is left to its default. What a
    task type does not use is not among them, nor what training chooses by the rows.
    """
    parameters: dict[str, Any] = {
        **spec.describe_recipe(),
        "base": spec.base.model_dump(mode="json"),
    }
    data = dict(parameters["data"])
    if all(value is None for name, value in data["limit"].items() if name != "seed"):
        del data["limit"]
    if not issubclass(TASK_TYPES[spec.kind], GenerationTaskType | DiffusionTaskType):
        del parameters["generate"], data["max_target"]
    options = read_options(spec.method).options
    method = dict(parameters["method"])
    if options is not None:
        method["options"] = options.model_dump(mode="json")
    train = dict(parameters["train"])
    if not METHODS[spec.method.name].trains_in_steps:
        train = {"seed": train["seed"]}
    elif may_take_small_batches(spec.train):
        del train["batch_size"]
    asked = spec.head.model_dump(mode="json") if spec.head is not None else {}
    head = {name: value for name, value in asked.items() if value != "auto"}
    shown = {OPTIONS_PARAMETER: describe_options(method.get("options") or {}) or None}
    return {**parameters, "data": data, "method": method, **shown, "train": train, "head": head}


def list_chosen_parameters(spec: TaskSpec, summary: TrainingSummary) -> dict[str, Any]:
    """Return what a training chose where its task left that open."""
    given = list_parameters(spec)
    train = {
        "batch_size": summary.batch_size,
        "epochs": None if summary.epochs is None else round(summary.epochs, 2),
        "steps": summary.steps,
        "learning_rate": summary.learning_rate,
    }
    pooling = summary.head.place if summary.head is not None else "transformers"
    head = {
        "init": summary.head_init,
        "pooling": pooling,
        "learning_rate": summary.head_learning_rate if summary.steps else None,
    }
    chosen: dict[str, dict[str, Any]] = {
        "train": train if summary.steps else {},
        "head": head if summary.head_init else {},
    }
    return {
        section: {name: value for name, value in values.items() if given[section].get(name) is None}
        for section, values in chosen.items()
    }


def write_card(card: DataCard) -> str:
    """Return the data card as JSON for people; no secret of an address is in it."""
    document = card.model_dump(mode="json") | {"source": hide_secrets(card.source)}
    return f"{json.dumps(document, indent=2, ensure_ascii=False)}\n"


def write_task_file(spec: TaskSpec, card: DataCard) -> str:
    """Return the task as a task file, with the fields that are not the defaults.

    It names the data as the card does: a path says where on a disk it was, which is private.
    """
    document = spec.model_dump(mode="json", exclude_defaults=True)
    document = {"name": spec.name, "kind": spec.kind, **document}
    document["data"] = {**document.get("data", {}), "source": hide_secrets(card.source)}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
