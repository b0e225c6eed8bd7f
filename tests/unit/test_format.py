"""What a store holds is written down below docs/format: one JSON Schema for each document."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from lorry_components.data.data_card import DataCard
from lorry_registry.ledger.events import Event, Head
from lorry_registry.manifest import Manifest
from lorry_registry.records.training_record import TrainingFacts

FOLDER = Path(__file__).parents[2] / "docs" / "format"
FROZEN = Path(__file__).parents[1] / "frozen" / "1" / "store"
DOCUMENTS: Mapping[str, type[BaseModel]] = {
    "manifest": Manifest,
    "head": Head,
    "event": Event,
    "training": TrainingFacts,
    "data-card": DataCard,
}
# Where each lies in a store.
PLACES: Mapping[str, str] = {
    "manifest": "adapters/*/manifest.json",
    "head": "tasks/*/head.json",
    "event": "tasks/*/history/*.json",
    "training": "tasks/*/history/*.json",
    "data-card": "attestations/*/data-card/*.json",
}


class _Written(GenerateJsonSchema):
    def field_is_required(self, *_: Any, **__: Any) -> bool:
        return True


def describe_document(name: str) -> dict[str, Any]:
    """Return a document's schema, which demands every field: each is written, also where it is null."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:lorry:format:1:{name}",
        **drop_words(DOCUMENTS[name].model_json_schema(mode="serialization", schema_generator=_Written)),
    }


def drop_words(schema: Any) -> Any:
    """Return a schema without docstrings: other words are no other format."""
    if isinstance(schema, list):
        return [drop_words(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: drop_words(value)
        for key, value in schema.items()
        # A property may have this name, and is a schema itself.
        if key != "description" or not isinstance(value, str)
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_schema_is_the_written_one(name: str) -> None:
    path, schema = FOLDER / f"{name}.schema.json", describe_document(name)
    if os.environ.get("UPDATE_GOLDEN"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(f"{json.dumps(schema, indent=2)}\n", "utf-8")
    assert schema == json.loads(path.read_text("utf-8")), (
        "this is another format: see CONTRIBUTING.md, and run with UPDATE_GOLDEN=1 if the change is wanted"
    )


def test_no_other_schema_lies_there() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.schema.json" for name in DOCUMENTS}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_frozen_document_has_exactly_the_fields_of_its_schema(name: str) -> None:
    documents = [json.loads(path.read_text("utf-8")) for path in FROZEN.glob(PLACES[name])]
    if name == "training":
        documents = [event["details"]["training"] for event in documents if event["action"] == "register"]
    assert documents
    schema = describe_document(name)
    for document in documents:
        assert document.keys() == schema["properties"].keys() == {*schema["required"]}
