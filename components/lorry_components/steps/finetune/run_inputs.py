"""What a training was made from, as MLflow keeps it: the task file, the data card, the data sets."""

import json

import yaml

from lorry_components.data.data_card import DataCard, NumberSummary
from lorry_registry.addresses import hide_secrets
from lorry_registry.mlflow_datasets import RunDataset
from lorry_registry.task_spec import TaskSpec

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


def write_card(card: DataCard) -> str:
    """Return the data card as JSON for people; no secret of an address is in it."""
    document = card.model_dump(mode="json") | {"source": hide_secrets(card.source)}
    return f"{json.dumps(document, indent=2, ensure_ascii=False)}\n"


def write_task_file(spec: TaskSpec, card: DataCard) -> str:
    """Return the task as a task file, with the fields that are not the defaults.

    It names the data as the card does: a path says where on a disk it was, which is nobody's business.
    """
    document = spec.model_dump(mode="json", exclude_defaults=True)
    document = {"name": spec.name, "kind": spec.kind, **document}
    document["data"] = {**document.get("data", {}), "source": hide_secrets(card.source)}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
