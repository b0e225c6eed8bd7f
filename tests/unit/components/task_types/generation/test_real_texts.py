"""Metrics and preparation on the papers' data sets."""

import gzip
import json
import os
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from lorry_components.metrics.matching import normalise_sql
from lorry_components.steps.prepare_data.step import load_part, prepare_data
from lorry_components.task_types import TextGeneration
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.tasks.task_spec import TaskSpec


@pytest.fixture(scope="module")
def real_data() -> Path:
    folder = os.environ.get("LORRY_TEST_DATA")
    if not folder:
        pytest.skip("LORRY_TEST_DATA names no folder of data sets")
    return Path(folder)


def make_spec(source: Path, **data: object) -> TaskSpec:
    return TaskSpec.model_validate(
        {
            "name": "real",
            "kind": "text-generation",
            "base": {"model": "./base"},
            "data": {"source": str(source)} | data,
            "method": {"name": "lora"},
        }
    )


def test_a_person_scores_as_a_person_does_on_e2e(real_data: Path) -> None:
    references: dict[str, list[str]] = defaultdict(list)
    with gzip.open(real_data / "e2e_nlg" / "test.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            references[row["mr"]].append(row["ref"])
    assert len(references) == 630
    several = [found for found in references.values() if len(found) > 4][:150]
    targets = [tuple(found[1:]) for found in several]
    predictions = [{"text": found[0]} for found in several]
    everything = np.arange(len(several))
    scores = {
        name: metric(targets, predictions)(everything) for name, metric in TextGeneration.metrics.items()
    }
    # Dusek et al. 2020 score systems on the whole set with BLEU 0.66, NIST 8.6, METEOR 0.45, ROUGE-L 0.69 and
    # CIDEr 2.2; one person against others is more varied than they are.
    assert 0.3 < scores["bleu"] < 0.66
    assert 5 < scores["nist"] < 9
    assert 0.4 < scores["meteor-1.5"] < 0.5
    assert 0.4 < scores["meteor"] < 0.95
    assert 0.4 < scores["rouge-l"] < 0.7
    assert 0.8 < scores["cider"] < 2.5
    # The sentence for another meaning is no answer.
    moved = TextGeneration.metrics["cider"](targets, predictions[75:] + predictions[:75])(everything)
    assert moved < 0.6 * scores["cider"]


def test_queries_of_wikisql_are_read_as_queries(real_data: Path, tmp_path: Path) -> None:
    spec = make_spec(
        real_data / "wikisql",
        columns={"text": "question", "text_pair": "columns", "label": "sql"},
        splits={"train": "train_part", "validation": "validation_part", "test": "test_part"},
        template="Columns: {text_pair}\nQuestion: {text}\nSQL: {label}",
    )
    card = prepare_data(resolve_task(spec), tmp_path / "data")
    assert card.splits["test"].rows == 100
    queries = [str(example.label) for example in load_part(tmp_path / "data", "train")]
    assert len(queries) > 950
    read = [normalise_sql(query) for query in queries]
    assert all(isinstance(found, tuple) for found in read)
    # As many as there are words WHERE and AND.
    wanted = sum(len(re.findall(r" (?:WHERE|AND) ", query)) for query in queries)
    conditions = [condition for found in read if isinstance(found, tuple) for condition in found[1]]
    # Column, operator and value each: what stood between quotation marks, or a number.
    assert all(isinstance(condition, tuple) and len(condition) == 3 for condition in conditions)
    assert len(conditions) == pytest.approx(wanted, rel=0.01)
    # None of them becomes another: their tables are all that is left out.
    assert len(set(read)) > 0.97 * len(set(queries))
