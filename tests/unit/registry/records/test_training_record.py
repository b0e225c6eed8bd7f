"""What is kept of a training beside the manifest: its data card, and how it went."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.errors import AdapterRejectedError
from lorry_registry.ledger.events import Event
from lorry_registry.ledger.version_status import find_statuses, judge_registration
from lorry_registry.manifest import Manifest
from lorry_registry.mlflow.version_card import describe_version, list_run_tags
from lorry_registry.records.training_record import (
    CARD_DETAIL,
    TRAINING_DETAIL,
    DataFacts,
    TrainingFacts,
    TrainingRecord,
    describe_training,
    parse_card,
    read_card,
    read_record,
    store_card,
)
from lorry_registry.registry import Registry
from lorry_registry.signing.attestations import attestations_key
from lorry_registry.stores import LocalStore

from fixtures.adapters import enroll

Make = Callable[..., Any]
CARD = {
    "version": 1,
    "source": "reviews.csv",
    "revision": None,
    "splits": {"train": {"rows": 1200, "words": {}}, "validation": {"rows": 150}, "test": {"rows": 150}},
    "dropped": {"duplicates": 7, "empty": 0},
    "warnings": ["ABBR is not measured", "train has 16 rows whose text it has with another class too"],
}
FACTS = {
    "learning_rate": 0.001,
    "steps": 114,
    "examples": 1200,
    "seconds": 11.26,
    "device": "a processor",
    "precision": "fp32",
    "batch_size": 32,
    "options": {},
    "kept_start": "",
}
CONTENT = json.dumps(CARD).encode("utf-8")
RECIPE = {
    "method": {"name": "lora", "options": {"r": 8, "alpha": None, "targets": ["query", "value"]}},
    "train": {
        "epochs": 3.0,
        "batch_size": 32,
        "gradient_accumulation": 1,
        "learning_rate": None,
        "schedule": "linear",
        "warmup": 0.1,
        "seed": 5,
    },
}


@pytest.fixture
def enrolled(registry: Registry, store: LocalStore, make_adapter: Make) -> tuple[Manifest, Event]:
    """A version whose data card is in the store, with its event."""
    adapter = make_adapter()
    registry.publish(adapter.path, adapter.manifest)
    details = {CARD_DETAIL: store_card(store, adapter.manifest, CONTENT), TRAINING_DETAIL: FACTS}
    event = registry.register(
        "reviews", adapter.adapter_id, promote=True, judged_champion=None, reasons=(), details=details
    )
    return adapter.manifest, event


def find_card(store: LocalStore, manifest: Manifest) -> Path:
    (path,) = (store.root / attestations_key(manifest.adapter_id) / "data-card").iterdir()
    return path


def test_a_card_lies_beside_the_adapter_and_is_read_by_its_digest(
    store: LocalStore, enrolled: tuple[Manifest, Event]
) -> None:
    manifest, event = enrolled
    record = read_record(store, manifest, event)
    assert record.data == DataFacts.model_validate(CARD)
    assert record.facts == TrainingFacts.model_validate(FACTS)
    assert record.warnings == tuple(CARD["warnings"])  # type: ignore[arg-type]
    # A second registration of the same training keeps the same card.
    assert store_card(store, manifest, CONTENT) == event.details[CARD_DETAIL]


def test_a_changed_or_missing_card_is_found_by_verify_and_told_by_others(
    registry: Registry, store: LocalStore, enrolled: tuple[Manifest, Event]
) -> None:
    manifest, event = enrolled
    assert [error for _, error in registry.verify_task("reviews")] == [None]
    path = find_card(store, manifest)
    path.chmod(0o644)
    path.write_bytes(CONTENT.replace(b"1200", b"9999"))
    (found,) = registry.verify_task("reviews")
    assert isinstance(found[1], AdapterRejectedError)
    assert "data card was changed" in str(found[1])
    record = read_record(store, manifest, event)
    assert (record.data, record.problem) == (None, "its data card was changed")
    assert describe_training(manifest, record)["Data"] == "its data card was changed"
    path.unlink()
    with pytest.raises(AdapterRejectedError, match="data card is missing"):
        read_card(store, manifest, event)
    store_card(store, manifest, CONTENT)
    assert [error for _, error in registry.verify_task("reviews")] == [None]


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"source": 3}', b"\xff", b"[" * 100_000, b'{"source": "a", "splits": {"train": {}}}'],
)
def test_what_is_no_card_is_an_error(content: bytes) -> None:
    with pytest.raises(AdapterRejectedError, match="data card cannot be read"):
        parse_card(content, where="here")


@pytest.mark.parametrize("facts", [None, "fast", {}, {**FACTS, "steps": -1}])
def test_an_event_that_says_nothing_of_it_is_no_error(
    registry: Registry, store: LocalStore, make_adapter: Make, facts: Any
) -> None:
    adapter = make_adapter()
    event = enroll(registry, adapter, details={} if facts is None else {TRAINING_DETAIL: facts})
    assert read_record(store, adapter.manifest, event) == TrainingRecord()


def test_how_an_adapter_was_trained_is_told_in_words(make_adapter: Make) -> None:
    manifest = make_adapter(recipe=RECIPE).manifest
    record = TrainingRecord(DataFacts.model_validate(CARD), TrainingFacts.model_validate(FACTS))
    assert describe_training(manifest, record) == {
        "Data": "reviews.csv",
        "Rows": "1,200 to train on, 150 to validate, 150 to test, 7 left out (duplicates)",
        "Method": "lora r=8 targets=query,value",
        "Course": "3 epochs, 114 steps, batches of 32",
        "Learning rate": "0.001, the method's own, linear, warm-up 10%",
        "Seed": "5",
        "Took": "11 s on a processor in fp32",
    }
    # Of one that was registered by hand the recipe is known.
    assert describe_training(manifest, TrainingRecord()) == {
        "Method": "lora r=8 targets=query,value",
        "Course": "3 epochs, batches of 32",
        "Learning rate": "the method's own, linear, warm-up 10%",
        "Seed": "5",
    }


def test_the_size_of_an_adapter_is_told_although_its_task_file_does_not(make_adapter: Make) -> None:
    recipe = {"method": {"name": "lora", "options": {"r": None}}, "train": RECIPE["train"]}
    manifest = make_adapter(recipe=recipe).manifest
    facts = TrainingFacts.model_validate({**FACTS, "options": {"r": 8, "alpha": 16}})
    record = TrainingRecord(facts=facts)
    assert record.label_method(recipe) == "lora r=8"
    assert describe_training(manifest, record)["Method"] == "lora r=8"
    status = judge_registration(1, manifest.adapter_id, promoted=True, reasons=())
    assert ", lora r=8 on gt_all" in describe_version(manifest, status, number="1", record=record)
    assert ", lora r=8 on gt_all" in list_run_tags(manifest, status, record)["mlflow.note.content"]
    # It is not known of one that was registered by hand.
    assert TrainingRecord().label_method(recipe) == "lora"
    assert record.label_method({}) == ""


def describe_with(make_adapter: Make, train: Mapping[str, Any], **facts: Any) -> Mapping[str, str]:
    manifest = make_adapter(recipe={"train": {**RECIPE["train"], **train}}).manifest
    record = TrainingRecord(facts=TrainingFacts.model_validate({**FACTS, **facts}))
    return describe_training(manifest, record)


def test_a_given_rate_and_accumulated_batches_are_told(make_adapter: Make) -> None:
    told = describe_with(
        make_adapter,
        {"epochs": None, "steps": 1, "learning_rate": 0.003, "gradient_accumulation": 4, "warmup": 0.0},
        steps=1,
        learning_rate=0.003,
    )
    assert told["Course"] == "1 step, batches of 32, 4 of them a step"
    assert told["Learning rate"] == "0.003, linear"
    assert told["Rows"] == "1,200 to train on"


def test_what_is_fitted_without_steps_has_no_rate(make_adapter: Make) -> None:
    told = describe_with(make_adapter, {}, steps=0, learning_rate=0.0)
    assert told["Course"] == "fitted to all rows at once, without steps"
    assert "Learning rate" not in told


def test_a_beginning_that_was_kept_is_told(make_adapter: Make) -> None:
    reason = "accuracy on validation was 0.710 when training began, and 0.700 in the end"
    told = describe_with(make_adapter, {}, kept_start=reason)
    assert told["Only a fitted head"] == reason
    assert "Only a fitted head" not in describe_with(make_adapter, {})


def test_mlflow_shows_how_it_was_trained_and_what_to_know_of_the_data(
    registry: Registry, store: LocalStore, enrolled: tuple[Manifest, Event]
) -> None:
    manifest, event = enrolled
    record = read_record(store, manifest, event)
    status = find_statuses(registry.ledger.read_history("reviews"))[1]
    card = describe_version(manifest, status, number="1", record=record).splitlines()
    assert "**To know of its data**" in card
    assert "- ABBR is not measured" in card
    assert "| Data&emsp; | reviews.csv |" in card
    note = list_run_tags(manifest, status, record)["mlflow.note.content"].splitlines()
    assert "- about its data: ABBR is not measured" in note
    # Without a record nothing is made up.
    bare = describe_version(manifest, status, number="1")
    assert "To know of its data" not in bare
    assert "reviews.csv" not in bare
