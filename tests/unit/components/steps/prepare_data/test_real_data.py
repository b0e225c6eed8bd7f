"""Data sets that people use, when LORRY_TEST_DATA names a folder of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.steps.prepare_data.step import load_part, prepare_data
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.errors import InvalidDataError
from lorry_registry.tasks.task_spec import TaskSpec

MakeSpec = Callable[..., TaskSpec]

CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "sst2_glue/train.jsonl.gz": ("text-classification", {"columns": {"text": "sentence"}}, 67_349),
    "stsb": (
        "regression",
        {"columns": {"text": "sentence1", "text_pair": "sentence2", "label": "score"}},
        5_749 + 1_500 + 1_379,
    ),
    "mrpc": (
        "text-classification",
        {"columns": {"text": "sentence1", "text_pair": "sentence2"}},
        3_668 + 408 + 1_725,
    ),
    "snli": (
        "text-classification",
        {"columns": {"text": "premise", "text_pair": "hypothesis"}, "splits": {"train": "train_part"}},
        18_000 + 9_842 + 9_824,
    ),
    "cola/train.jsonl.gz": ("text-classification", {"columns": {"text": "sentence"}}, 8_551),
    "trec/train.jsonl.gz": ("text-classification", {}, 5_452),
    "sms_spam": ("text-classification", {}, 5_574),
    "sentiment_sentences": ("text-classification", {"split": {"seed": 1}}, 3_000),
    "clinc150_small": ("text-classification", {}, 7_600 + 3_100 + 5_500),
}


@pytest.mark.parametrize("name", CASES)
def test_prepare_and_load(make_spec: MakeSpec, real_data: Path, tmp_path: Path, name: str) -> None:
    task_type, options, rows = CASES[name]
    card = prepare_data(resolve_task(make_spec(real_data / name, task_type, **options)), tmp_path / "out")
    parts = {part: load_part(tmp_path / "out", part) for part in card.splits}
    assert sum(map(len, parts.values())) + sum(card.dropped.values()) == rows
    assert {part: len(examples) for part, examples in parts.items()} == {
        part: split.rows for part, split in card.splits.items()
    }
    held_out = {example.key for part in ("validation", "test") for example in parts[part]}
    assert not held_out & {example.key for example in parts["train"]}
    if card.labels is not None:
        assert {example.label for example in parts["train"]} == set(card.labels)
    has_pair = "text_pair" in options.get("columns", {})
    assert all(("text_pair" in example.row) == has_pair for example in parts["test"])


def test_what_is_known_of_them(make_spec: MakeSpec, real_data: Path, tmp_path: Path) -> None:
    task_type, options, _ = CASES["mrpc"]
    card = prepare_data(resolve_task(make_spec(real_data / "mrpc", task_type, **options)), tmp_path / "mrpc")
    assert card.labels == ("equivalent", "not_equivalent")
    assert card.splits["train"].labels == {"equivalent": 2474, "not_equivalent": 1194}
    task_type, options, _ = CASES["stsb"]
    card = prepare_data(resolve_task(make_spec(real_data / "stsb", task_type, **options)), tmp_path / "stsb")
    assert sum(card.dropped.values()) == 15
    assert any("'A woman peels a potato.'" in warning for warning in card.warnings)


def test_a_test_set_without_labels(make_spec: MakeSpec, real_data: Path, tmp_path: Path) -> None:
    spec = make_spec(real_data / "sst2_glue", columns={"text": "sentence"})
    with pytest.raises(
        InvalidDataError, match=r"test.jsonl: has no column 'label' .*; it has index, sentence"
    ):
        prepare_data(resolve_task(spec), tmp_path / "out")
