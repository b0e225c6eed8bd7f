"""F1 is that of the class that a person means, and GLUE's where GLUE says which."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics

from lorry_components.metrics import score_f1
from lorry_components.metrics.classification import choose_positive


def score(
    truth: Sequence[str], guess: Sequence[str], positive: str | None = None, classes: Sequence[str] = ()
) -> float:
    names = {*truth, *guess, *classes}
    predictions = [{"label": label, "scores": dict.fromkeys(names, 0.0)} for label in guess]
    return score_f1(list(truth), predictions, positive=positive)(np.arange(len(truth)))


@pytest.mark.parametrize(
    ("classes", "positive"),
    [
        # GLUE's label 1 of MRPC and QQP, whose F1 it scores.
        (("equivalent", "not_equivalent"), "equivalent"),
        (("duplicate", "not_duplicate"), "duplicate"),
        # Those that GLUE scores by accuracy and by Matthews.
        (("entailment", "not_entailment"), "entailment"),
        (("acceptable", "unacceptable"), "acceptable"),
        (("non-toxic", "toxic"), "toxic"),
        (("hate", "nonhate"), "hate"),
        (("No complaint", "complaint"), "complaint"),
        (("relevant", "irrelevant"), "relevant"),
        (("no", "yes"), "yes"),
        (("yes", "no"), "yes"),
        (("0", "1"), "1"),
        (("ham", "spam"), "spam"),
        (("negative", "positive"), "positive"),
        # Not every word that begins like a negation is one.
        (("abnormal", "normal"), "normal"),
        (("fiction", "novel"), "novel"),
        (("indoor", "outdoor"), "outdoor"),
        (("a", "b", "c"), None),
        (("a",), None),
    ],
)
def test_the_positive_class_is_the_one_that_is_not_negated(
    classes: tuple[str, ...], positive: str | None
) -> None:
    assert choose_positive(classes) == positive


@pytest.mark.parametrize("name", ["equivalent", "duplicate"])
def test_glue_scores_its_label_one(name: str) -> None:
    chance = np.random.default_rng(0)
    truth, guess = chance.integers(0, 2, (2, 200))
    words = np.asarray([f"not_{name}", name])
    expected = sklearn.metrics.f1_score(truth, guess, pos_label=1)
    other = sklearn.metrics.f1_score(truth, guess, pos_label=0)
    assert expected != other
    assert score(list(words[truth]), list(words[guess])) == pytest.approx(expected, abs=1e-12)
    assert score(list(words[truth]), list(words[guess]), f"not_{name}") == pytest.approx(other, abs=1e-12)


def test_the_majority_scores_on_mrpc_as_it_is_published(real_data: Path) -> None:
    # GLUE's validation part: 279 of 408 pairs are equivalent, which is .684 and .812 for who always says so.
    truth = [json.loads(line)["label"] for line in _read_lines(real_data / "mrpc")]
    assert len(truth) == 408
    assert score(truth, ["equivalent"] * 408, classes=["not_equivalent"]) == pytest.approx(0.8122, abs=5e-5)


def test_any_class_can_be_named() -> None:
    truth, guess = ["a", "b", "c", "c"], ["a", "c", "c", "b"]
    assert score(truth, guess, "c") == pytest.approx(0.5)
    assert score(truth, guess) == pytest.approx((1 + 0 + 0.5) / 3)
    assert score(truth, guess, "a") == 1.0
    # A champion may not know the class that its task has now.
    assert score(truth, guess, "d") == 0.0


def _read_lines(folder: Path) -> list[str]:
    path = next(folder.glob("validation.jsonl*"))
    with (
        gzip.open(path, "rt", encoding="utf-8")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8") as stream
    ):
        return list(stream)
