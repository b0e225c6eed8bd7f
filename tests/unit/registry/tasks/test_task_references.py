"""References to tasks: short, stable, and what they refer to is checked."""

import json

import pytest

from lorry_registry.errors import InvalidTaskError, StoreError
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_references import label_task, read_task, refer_to_task, store_task
from lorry_registry.tasks.task_spec import TaskSpec

DOCUMENT = {
    "name": "films",
    "kind": "text-classification",
    "base": {"model": "/models/base"},
    "data": {"source": "/data/films.jsonl"},
    "method": {"name": "lora"},
}
SPEC = TaskSpec.model_validate(DOCUMENT)


def find_document(store: LocalStore, spec: TaskSpec = SPEC) -> str:
    return f"specs/{refer_to_task(spec).digest.removeprefix('sha256:')}.json"


def test_a_reference_leads_to_the_very_task(store: LocalStore) -> None:
    reference = store_task(store, SPEC)
    assert str(reference).startswith("films@sha256:")
    assert read_task(str(reference), store) == SPEC
    # Another process with the same task refers to the same document.
    assert store_task(store, TaskSpec.model_validate(DOCUMENT)) == reference
    assert list(store.list_keys("specs")) == [find_document(store)]


def test_a_change_of_a_task_is_another_reference(store: LocalStore) -> None:
    changed = SPEC.model_copy(update={"description": "of last year"})
    assert store_task(store, changed) != store_task(store, SPEC)


def test_a_thousand_references_fit_into_one_argument_of_a_process() -> None:
    long = SPEC.model_copy(update={"name": "a" * 63})
    assert len(json.dumps([str(refer_to_task(long))] * 900)) < 128 * 1024


def test_a_whole_document_is_read_as_well(store: LocalStore) -> None:
    assert read_task(SPEC.model_dump_json(), store) == SPEC


def test_every_fault_of_a_document_is_listed(store: LocalStore) -> None:
    with pytest.raises(InvalidTaskError) as caught:
        read_task(json.dumps(DOCUMENT | {"kind": 3, "train": {"epochs": -1}}), store)
    assert caught.value.where == "films"
    assert {fault.where for fault in caught.value.faults} >= {"kind", "train.epochs"}


def test_a_document_that_is_missing_or_was_changed_is_refused(store: LocalStore) -> None:
    reference = str(refer_to_task(SPEC))
    with pytest.raises(StoreError, match="is not in the store"):
        read_task(reference, store)
    store.create(find_document(store), SPEC.model_copy(update={"owner": "eve"}).model_dump_json().encode())
    with pytest.raises(StoreError, match="was changed"):
        read_task(reference, store)


def test_a_reference_under_another_name_is_refused(store: LocalStore) -> None:
    digest = store_task(store, SPEC).digest
    with pytest.raises(InvalidTaskError, match="that of the task 'films'"):
        read_task(f"books@{digest}", store)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (str(refer_to_task(SPEC)), "films"),
        (SPEC.model_dump_json(), "films"),
        ("{}", "unreadable-44136fa3"),
        ('{"name": ["films"]}', "unreadable-"),
        ('{"name": "a/b"}', "unreadable-"),
        ("", "unreadable-"),
        ("\ud800", "unreadable-"),
    ],
)
def test_every_text_has_a_label_that_may_be_a_key(text: str, label: str, store: LocalStore) -> None:
    given = label_task(text)
    assert given.startswith(label)
    store.create(f"runs/run-1/tasks/{given}/prepare_data.json", b"{}")
