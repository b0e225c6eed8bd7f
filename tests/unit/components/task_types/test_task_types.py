"""Kinds: labels in, predictions and scores out."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy import stats
from sklearn import metrics as sklearn_metrics
from transformers import AutoTokenizer

from lorry_components.metrics.base import Metric
from lorry_components.metrics.classification import score_accuracy, score_f1, score_matthews
from lorry_components.metrics.numbers import compute_pearson, compute_rmse, compute_spearman
from lorry_components.steps.evaluate.evaluation_plot import plot_evaluation
from lorry_components.task_types import TASK_TYPES, InputForm, Regression, TaskType, TextClassification
from lorry_components.task_types.sequence_head import SequenceHeadTaskType
from lorry_registry.manifest import Evaluation, MetricValue

FORM = InputForm(max_length=32)
CLASSIFICATION, REGRESSION = TextClassification(FORM), Regression(FORM)
# Far from the ends of the range, where squares would overflow or vanish.
NUMBERS = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False).map(lambda number: round(number, 4))
NUMBER_PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=60)


def split_pairs(pairs: list[tuple[Any, Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.asarray([pair[0] for pair in pairs]), np.asarray([pair[1] for pair in pairs])


# Labels


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ("good", "good"),
        ("  good \n", "good"),
        ("very good", "very good"),
        ("0", "0"),
        (0, "0"),
        (-1, "-1"),
        (3.0, "3"),
        (-0.0, "0"),
        ("3.0", "3.0"),
        ("très bien", "très bien"),
        (True, "true"),
        (False, "false"),
    ],
)
def test_a_class_is_text_or_a_whole_number(raw: object, label: str) -> None:
    assert CLASSIFICATION.parse_label(raw) == label


@pytest.mark.parametrize("raw", [None, 0.5, math.nan, math.inf, b"good", ["good"], {}, ("a",)])
def test_anything_else_is_no_class(raw: object) -> None:
    with pytest.raises(ValueError, match="is not a class name or a whole number"):
        CLASSIFICATION.parse_label(raw)


@pytest.mark.parametrize("raw", ["", "   ", "\n"])
def test_an_empty_class_is_told(raw: str) -> None:
    with pytest.raises(ValueError, match="is empty"):
        CLASSIFICATION.parse_label(raw)


@pytest.mark.parametrize(
    ("raw", "label"), [(1, 1.0), (-2.5, -2.5), ("3.25", 3.25), (" -1e-3 ", -0.001), (0, 0.0), (10**15, 1e15)]
)
def test_a_number_or_text_that_spells_one_is_a_regression_label(raw: object, label: float) -> None:
    parsed = REGRESSION.parse_label(raw)
    assert (type(parsed), parsed) == (float, label)


@pytest.mark.parametrize("raw", [None, True, "", "good", "1,5", [1.0], b"1", 10**400])
def test_what_is_no_number_is_told(raw: object) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        REGRESSION.parse_label(raw)


@pytest.mark.parametrize("raw", [math.nan, math.inf, "-inf", "NaN", "1e999"])
def test_a_number_that_is_not_finite_is_told(raw: object) -> None:
    with pytest.raises(ValueError, match="is not finite"):
        REGRESSION.parse_label(raw)


def test_the_message_about_a_long_text_is_short() -> None:
    with pytest.raises(ValueError, match="is not a number") as caught:
        REGRESSION.parse_label("x" * 10_000)
    assert len(str(caught.value)) < 100


def test_a_label_becomes_what_the_loss_is_computed_against() -> None:
    labels = ["ABBR", "DESC", "NUM"]
    assert [CLASSIFICATION.encode_label(label, labels) for label in ("NUM", "ABBR")] == [2, 0]
    assert CLASSIFICATION.encode_label("1", ["0", "1"]) == 1
    assert REGRESSION.encode_label(2.5, None) == 2.5
    with pytest.raises(ValueError, match="is not in list"):
        CLASSIFICATION.encode_label("LOC", labels)


# Metrics, against scikit-learn and scipy


@settings(deadline=None)
@given(NUMBER_PAIRS)
def test_regression_metrics_are_those_of_scipy(pairs: list[tuple[float, float]]) -> None:
    truth, guess = split_pairs(pairs)
    if np.ptp(truth) == 0 or np.ptp(guess) == 0:
        assert (compute_pearson(truth, guess), compute_spearman(truth, guess)) == (0.0, 0.0)
        return
    # scipy warns where a side is as good as constant; ours is what numpy says there.
    if min(np.ptp(truth), np.ptp(guess)) > 1e-3 * (1 + max(np.abs(truth).max(), np.abs(guess).max())):
        assert_allclose(compute_pearson(truth, guess), stats.pearsonr(truth, guess).statistic, atol=1e-9)
    assert_allclose(compute_spearman(truth, guess), stats.spearmanr(truth, guess).statistic, atol=1e-9)
    assert_allclose(
        compute_rmse(truth, guess), sklearn_metrics.root_mean_squared_error(truth, guess), rtol=1e-9
    )


@pytest.mark.parametrize("count", [3, 7, 10, 100])
@pytest.mark.parametrize("value", [0.0, 0.1, -0.3, 1 / 3, 1e9])
def test_a_constant_side_has_no_correlation(value: float, count: int) -> None:
    # The mean of ten times 0.1 is not 0.1, so that a standard deviation is not quite 0.
    constant, other = np.full(count, value), np.arange(count, dtype=float)
    for metric in (compute_pearson, compute_spearman):
        assert (metric(constant, other), metric(other, constant), metric(constant, constant)) == (0, 0, 0)


def score_classes(metric: Metric, truth: Sequence[str], guess: Sequence[str]) -> float:
    classes = sorted({*truth, *guess})
    predictions = [{"label": label, "scores": dict.fromkeys(classes, 0.0)} for label in guess]
    return metric(list(truth), predictions)(np.arange(len(truth)))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=50))
def test_classification_metrics_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    truth, guess = split_pairs(pairs)
    assert score_classes(score_accuracy, truth, guess) == sklearn_metrics.accuracy_score(truth, guess)
    classes = sorted({*truth, *guess})
    if len(classes) == 2:
        expected = sklearn_metrics.f1_score(truth, guess, pos_label=classes[1], zero_division=0)
    else:
        expected = sklearn_metrics.f1_score(truth, guess, average="macro", zero_division=0)
    assert_allclose(score_classes(score_f1, truth, guess), expected)
    if len(set(truth)) == 1 or len(set(guess)) == 1:
        assert score_classes(score_matthews, truth, guess) == 0.0
    else:
        assert_allclose(
            score_classes(score_matthews, truth, guess), sklearn_metrics.matthews_corrcoef(truth, guess)
        )


def test_f1_of_two_classes_is_that_of_the_second() -> None:
    truth, guess = (
        np.asarray(["no", "no", "yes", "yes", "yes"]),
        np.asarray(["no", "yes", "yes", "yes", "no"]),
    )
    assert score_classes(score_f1, truth, guess) == pytest.approx(2 / 3)
    assert score_classes(score_f1, truth, truth) == 1.0


@pytest.mark.parametrize("task_type", TASK_TYPES.values(), ids=TASK_TYPES)
def test_a_kind_names_its_metrics_rightly(task_type: type[TaskType]) -> None:
    assert task_type.primary in task_type.metrics
    assert task_type.error_metrics <= set(task_type.metrics)
    assert task_type.primary not in task_type.error_metrics


def test_metrics_are_computed_by_name() -> None:
    predictions = [{"value": value} for value in (1.0, 2.0, 4.0)]
    scores = REGRESSION.compute_metrics(["rmse", "pearson"], [1.0, 2.0, 3.0], predictions)
    assert list(scores) == ["rmse", "pearson"]
    assert scores["rmse"] == pytest.approx(math.sqrt(1 / 3))
    labelled = [{"label": "a"}, {"label": "b"}]
    assert CLASSIFICATION.compute_metrics(["accuracy"], ["a", "a"], labelled) == {"accuracy": 0.5}


# Predictions


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-200, 200, width=32), min_size=3, max_size=3).map(tuple), min_size=1, max_size=20
    )
)
def test_a_class_comes_with_probabilities(rows: list[tuple[float, ...]]) -> None:
    outputs = np.asarray(rows, dtype=np.float32)
    predictions = CLASSIFICATION.decode_outputs(outputs, ["x", "y", "z"])
    expected = np.exp(outputs.astype(float) - outputs.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    for row, prediction in zip(expected, predictions, strict=True):
        assert_allclose([prediction["scores"][name] for name in "xyz"], row, atol=1e-5)
        assert prediction["score"] == max(prediction["scores"].values())
        assert prediction["scores"][prediction["label"]] == prediction["score"]
        assert sum(prediction["scores"].values()) == pytest.approx(1.0, abs=1e-5)


def test_a_huge_output_does_not_overflow() -> None:
    (prediction,) = CLASSIFICATION.decode_outputs(np.asarray([[1e5, -1e5]], dtype=np.float32), ["a", "b"])
    assert (prediction["label"], prediction["score"]) == ("a", 1.0)


def test_a_regression_predicts_plain_numbers() -> None:
    predictions = REGRESSION.decode_outputs(np.asarray([[1.5], [-2.0]], dtype=np.float32), None)
    assert predictions == [{"value": 1.5}, {"value": -2.0}]
    assert type(predictions[0]["value"]) is float


def test_a_prediction_reads_well() -> None:
    assert REGRESSION.describe_prediction({"value": 1.256}) == "+1.26"
    assert REGRESSION.describe_prediction({"value": -0.5}) == "-0.50"
    assert CLASSIFICATION.describe_prediction({"label": "good", "score": 0.987}) == "good (99%)"


# Plots


def guess_classes(count: int) -> tuple[list[str], list[dict[str, Any]]]:
    names = [f"class {index:02d}" for index in range(count)]
    generator = np.random.default_rng(0)
    targets = generator.choice(names, size=200).tolist()
    return targets, [{"label": str(label)} for label in generator.choice(names, size=200)]


@pytest.mark.parametrize("count", [2, 20])
def test_a_classification_draws_its_confusion_matrix(tmp_path: Path, count: int) -> None:
    targets, predictions = guess_classes(count)
    axes = Figure().add_subplot()
    CLASSIFICATION.plot_predictions(axes, targets, predictions)
    (image,) = axes.get_images()
    shares = np.asarray(image.get_array())
    guesses = [prediction["label"] for prediction in predictions]
    expected = sklearn_metrics.confusion_matrix(targets, guesses, normalize="true")
    assert_allclose(shares, expected)
    assert [text.get_text() for text in axes.get_yticklabels()] == sorted(set(targets))
    # Counts are legible in a small matrix only.
    assert len(axes.texts) == (count**2 if count == 2 else 0)
    write_plot(tmp_path, CLASSIFICATION, targets, predictions)


def test_a_class_that_is_never_true_is_drawn_as_well() -> None:
    axes = Figure().add_subplot()
    CLASSIFICATION.plot_predictions(axes, ["a", "a"], [{"label": "a"}, {"label": "b"}])
    assert [text.get_text() for text in axes.texts] == ["1", "1", "0", "0"]


def test_a_regression_draws_predicted_over_true_values(tmp_path: Path) -> None:
    targets = [0.0, 1.0, 2.0]
    predictions = [{"value": value} for value in (0.5, 1.0, 3.0)]
    axes = Figure().add_subplot()
    REGRESSION.plot_predictions(axes, targets, predictions)
    (points,) = axes.collections
    assert points.get_offsets().tolist() == [[0.0, 0.5], [1.0, 1.0], [2.0, 3.0]]
    (line,) = axes.lines
    assert np.asarray(line.get_data()).tolist() == [[0.0, 3.0], [0.0, 3.0]]
    write_plot(tmp_path, REGRESSION, targets, predictions)


def write_plot(
    folder: Path, task_type: TaskType, targets: list[Any], predictions: list[dict[str, Any]]
) -> None:
    value = MetricValue(value=0.5, low=0.4, high=0.6)
    evaluation = Evaluation(
        split="test", examples=len(targets), primary=task_type.primary, metrics={task_type.primary: value}
    )
    path = folder / "plot.png"
    plot_evaluation(
        path,
        title="task",
        task_type=task_type,
        targets=targets,
        predictions=predictions,
        evaluation=evaluation,
    )
    assert path.read_bytes().startswith(b"\x89PNG")


# Encoding


@pytest.fixture
def tokenizer(tiny_base: Callable[[str], Path]) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base("bert"))


@pytest.mark.parametrize("task_type", [CLASSIFICATION, REGRESSION], ids=lambda task_type: task_type.name)
def test_single_texts_are_encoded_without_padding(task_type: SequenceHeadTaskType, tokenizer: Any) -> None:
    rows = [{"text": "the film was good"}, {"text": "so dull and boring"}, {"text": "bad"}]
    encoded = task_type.encode_rows(tokenizer, rows)
    assert [tokenizer.decode(row["input_ids"]) for row in encoded] == [
        "[CLS] the film was good [SEP]",
        "[CLS] so dull and boring [SEP]",
        "[CLS] bad [SEP]",
    ]
    assert [len(row["attention_mask"]) for row in encoded] == [6, 6, 3]
    assert all(set(row["token_type_ids"]) == {0} for row in encoded)


def test_pairs_are_told_apart_by_their_segments(tokenizer: Any) -> None:
    (row,) = CLASSIFICATION.encode_rows(tokenizer, [{"text": "good film", "text_pair": "bad"}])
    assert tokenizer.decode(row["input_ids"]) == "[CLS] good film [SEP] bad [SEP]"
    assert row["token_type_ids"] == [0, 0, 0, 0, 1, 1]


def test_long_texts_are_cut_and_of_a_pair_the_longer_one_first(tokenizer: Any) -> None:
    short = Regression(InputForm(max_length=8))
    (single,) = short.encode_rows(tokenizer, [{"text": "good " * 50}])
    assert tokenizer.decode(single["input_ids"]) == "[CLS]" + " good" * 6 + " [SEP]"
    (pair,) = short.encode_rows(tokenizer, [{"text": "good " * 50, "text_pair": "so bad"}])
    assert tokenizer.decode(pair["input_ids"]) == "[CLS] good good good [SEP] so bad [SEP]"


def test_no_rows_are_no_inputs(tokenizer: Any) -> None:
    assert REGRESSION.encode_rows(tokenizer, []) == []
    assert REGRESSION.decode_outputs(np.zeros((0, 1), dtype=np.float32), None) == []
    assert CLASSIFICATION.decode_outputs(np.zeros((0, 2), dtype=np.float32), ["a", "b"]) == []


# Heads


def test_the_head_has_an_output_for_each_class(tiny_base: Callable[[str], Path]) -> None:
    model, newly_initialized = CLASSIFICATION.load_model(tiny_base("bert"), ["bad", "mixed", "good"])
    assert newly_initialized == {"classifier.weight", "classifier.bias"}
    assert model.config.id2label == {0: "bad", 1: "mixed", 2: "good"}
    assert model.config.problem_type == "single_label_classification"
    assert model.get_submodule("classifier").out_features == 3


def test_the_head_of_a_regression_has_one_output(tiny_base: Callable[[str], Path]) -> None:
    model, newly_initialized = REGRESSION.load_model(tiny_base("bert-without-pooler"), None)
    assert model.config.problem_type == "regression"
    assert model.config.num_labels == 1
    # What the base's weights lack is random, wherever it is.
    assert newly_initialized == {
        "classifier.weight",
        "classifier.bias",
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
    }


# One answer for all


@pytest.mark.parametrize(
    ("targets", "labels", "found"),
    [
        (["a", "b", "a"], ["a", "a", "a"], "a"),
        (["a", "b", "a"], ["a", "a", "b"], None),
        (["a", "a", "a"], ["a", "a", "a"], None),
    ],
)
def test_one_class_for_all_rows(targets: list[str], labels: list[str], found: str | None) -> None:
    predictions: list[dict[str, Any]] = [{"label": label} for label in labels]
    assert CLASSIFICATION.find_single_answer(targets, predictions) == found


@pytest.mark.parametrize(
    ("targets", "values", "found"),
    [
        ([0.0, 1.0, 2.0], [1.25, 1.25, 1.2501], "1.25"),
        ([0.0, 1.0, 2.0], [1.0, 1.1, 1.2], None),
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], None),
        ([1.0], [1.0], None),
    ],
)
def test_one_number_for_all_rows(targets: list[float], values: list[float], found: str | None) -> None:
    predictions: list[dict[str, Any]] = [{"value": value} for value in values]
    assert REGRESSION.find_single_answer(targets, predictions) == found
