"""Answers as data writes them, as labels, and scored as SQuAD scores them."""

import json
import random
import re
from typing import Any

import numpy as np
import pytest

from lorry_components.metrics.squad import score_answers
from lorry_components.task_types import TASK_TYPES, InputForm, Prediction
from lorry_components.task_types.question_answering.answer_labels import (
    choose_span,
    list_truths,
    read_answers,
)
from lorry_components.task_types.question_answering.span_extraction import QuestionAnswering

CONTEXT = "Ada wrote notes. Later Ada wrote a program for the engine."


@pytest.fixture
def task_type() -> QuestionAnswering:
    task_type = TASK_TYPES["question-answering"](InputForm(max_length=32, has_pair=True))
    assert isinstance(task_type, QuestionAnswering)
    return task_type


def make_label(*texts: str, starts: list[int | None] | None = None) -> str:
    return QuestionAnswering(InputForm(32)).parse_label(
        {"text": list(texts), "answer_start": starts or [None] * len(texts)}
    )


@pytest.mark.parametrize(
    "raw",
    [
        {"text": ["Ada", "a program"], "answer_start": [23, 33]},
        {"text": ["Ada", "a program"], "answer_start": [23.0, 33], "answer_id": [1, 2]},
        [{"text": "Ada", "answer_start": 23}, {"text": "a program", "answer_start": 33}],
        '{"text": ["Ada", "a program"], "answer_start": [23, 33]}',
        ' [{"text": "Ada", "answer_start": 23}, {"text": "a program", "answer_start": 33}]',
    ],
)
def test_every_form_of_answers_is_the_same_label(task_type: QuestionAnswering, raw: object) -> None:
    label = task_type.parse_label(raw)
    assert label == '{"answer_start":[23,33],"text":["Ada","a program"]}'
    assert task_type.parse_label(label) == label
    assert [(answer.text, answer.start) for answer in read_answers(label)] == [("Ada", 23), ("a program", 33)]
    assert task_type.find_fault({"text": "Who?", "text_pair": CONTEXT}, label) == ""
    assert task_type.spell_label(label) == "Ada"


@pytest.mark.parametrize("raw", ["a program", ["a program"], {"text": "a program"}, [{"text": "a program"}]])
def test_where_an_answer_stands_need_not_be_told(task_type: QuestionAnswering, raw: object) -> None:
    label = task_type.parse_label(raw)
    assert label == '{"answer_start":[null],"text":["a program"]}'
    assert task_type.find_fault({"text": "What?", "text_pair": CONTEXT}, label) == ""


@pytest.mark.parametrize("raw", [[], {"text": [], "answer_start": []}, "[]", '{"text": []}'])
def test_a_question_may_have_no_answer(task_type: QuestionAnswering, raw: object) -> None:
    label = task_type.parse_label(raw)
    assert label == '{"answer_start":[],"text":[]}'
    assert task_type.find_fault({"text": "Who?", "text_pair": CONTEXT}, label) == ""
    assert task_type.spell_label(label) == ""


def test_an_answer_may_look_like_json(task_type: QuestionAnswering) -> None:
    for text in ("[1]", "{x}", '{"key": 1}', "[" * 100_000):
        assert [answer.text for answer in read_answers(task_type.parse_label(text))] == [text]


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (None, "holds null, not answers; write [] where the context has no answer"),
        (3, "holds a number, not answers"),
        ("  ", "holds an answer without words; write []"),
        ({"answers": ["Ada"]}, "has no 'text'"),
        ({"text": ["Ada", "Eve"], "answer_start": [0]}, "has 2 texts and 1 of 'answer_start'"),
        ({"text": [None], "answer_start": [0]}, "holds null as the text of an answer"),
        ({"text": ["Ada"], "answer_start": [-1]}, "has -1 as 'answer_start'"),
        ({"text": ["Ada"], "answer_start": [True]}, "has True as 'answer_start'"),
        ({"text": ["Ada"], "answer_start": [float("nan")]}, "has nan as 'answer_start'"),
        ({"text": ["Ada"], "answer_start": ["0"]}, "has '0' as 'answer_start'"),
        ([7], "holds a number in its list, not an answer"),
    ],
)
def test_what_is_no_answer_is_refused(task_type: QuestionAnswering, raw: object, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        task_type.parse_label(raw)


def test_a_context_without_its_answer_is_a_fault(task_type: QuestionAnswering) -> None:
    row = {"text": "Who?", "text_pair": CONTEXT}
    told = task_type.find_fault(row, make_label("Ada", "Babbage"))
    assert told == "the answer 'Babbage' does not occur in the context"
    told = task_type.find_fault(row, make_label("Ada", starts=[22]))
    assert told == "the answer 'Ada' does not stand at character 22 of the context, but at 0"
    assert "at character 1,000" in task_type.find_fault(row, make_label("Ada", starts=[1000]))
    assert len(task_type.find_fault(row, make_label("x" * 10_000))) < 200


def test_training_points_at_what_most_annotators_said() -> None:
    answers = read_answers(make_label("notes", " Ada", "Ada", "Ada", starts=[10, 22, 23, 0]))
    assert choose_span(CONTEXT, answers) == (23, 26)
    assert choose_span(CONTEXT, read_answers(make_label("Ada", "notes"))) == (0, 3)
    assert choose_span(CONTEXT, []) is None


def test_the_published_examples_of_the_official_metric(task_type: QuestionAnswering) -> None:
    # Of the metric 'squad' and 'squad_v2' in huggingface/evaluate: right, wrong, two of three.
    references = ["1976", "Beyonce", "climate change"]
    targets = [make_label(text) for text in references]
    for guesses, expected in (
        (["1976"], 1.0),
        (["1999"], 0.0),
        (["1976", "Beyonce", "global warming"], 2 / 3),
    ):
        scores = task_type.compute_metrics(
            ["f1", "exact_match"], targets[: len(guesses)], [{"answer": text} for text in guesses]
        )
        assert scores == pytest.approx({"f1": expected, "exact_match": expected})


@pytest.mark.parametrize(
    ("truths", "guess", "f1", "exact"),
    [
        (["the Denver Broncos"], "Denver Broncos.", 1.0, 1.0),
        (["Denver Broncos"], "Broncos of Denver", 0.8, 0.0),
        (["Broncos", "Denver Broncos"], "denver broncos", 1.0, 1.0),
        (["a b b c"], "b b d", 2 * 2 / (3 + 3), 0.0),
        # Of SQuAD 2.0: without an answer the empty prediction alone is right.
        ([], "", 1.0, 1.0),
        ([], "Denver", 0.0, 0.0),
        (["Denver"], "", 0.0, 0.0),
        # The official script leaves out answers of nothing but articles and punctuation.
        (["the", "Denver"], "", 0.0, 0.0),
        (["the"], "", 1.0, 1.0),
    ],
)
def test_answers_are_compared_as_squad_does(
    task_type: QuestionAnswering, truths: list[str], guess: str, f1: float, exact: float
) -> None:
    scores = task_type.compute_metrics(["f1", "exact_match"], [make_label(*truths)], [{"answer": guess}])
    assert scores == pytest.approx({"f1": f1, "exact_match": exact})


def test_metrics_agree_with_torchmetrics(task_type: QuestionAnswering) -> None:
    from torchmetrics.functional.text import squad

    generator = random.Random(0)  # noqa: S311 - words to compare, no secrets
    words = ["cat", "Cat", "cats", "sat.", "on", "mat,", "U.S.", "1976", "été", "don't", "x-ray"]
    articles = [*words, "the", "A", "an", "--"]
    targets, predictions, given, expected = [], [], [], []
    for number in range(200):
        # torchmetrics knows no question without an answer: none here is of articles alone.
        texts = [" ".join([*generator.choices(articles, k=3), generator.choice(words)]) for _ in range(2)]
        guess = " ".join([generator.choice(words), *generator.choices(articles, k=2)])
        targets.append(make_label(*texts))
        predictions.append({"answer": guess})
        given.append({"prediction_text": guess, "id": str(number)})
        expected.append({"answers": {"text": texts, "answer_start": [0, 0]}, "id": str(number)})
    published = {name: float(value) / 100 for name, value in squad(given, expected).items()}
    assert 0.1 < published["f1"] < 0.9
    assert task_type.compute_metrics(["f1", "exact_match"], targets, predictions) == pytest.approx(published)


def test_a_metric_scores_the_rows_that_are_drawn(task_type: QuestionAnswering) -> None:
    targets = [make_label("Ada"), make_label("Eve"), make_label()]
    predictions: list[Prediction] = [{"answer": "Ada"}, {"answer": "Ada"}, {"answer": ""}]
    scorer = task_type.metrics["f1"](targets, predictions)
    assert scorer(np.asarray([0, 1, 2])) == pytest.approx(2 / 3)
    assert scorer(np.asarray([1, 1, 1])) == 0.0
    assert scorer(np.asarray([0, 0, 2])) == 1.0


def test_several_rows_of_labels_may_be_right_together() -> None:
    target = (make_label("x"), make_label("y"))
    assert score_answers(
        lambda truth, guess: float(truth == guess), [list_truths(target)], [{"answer": "y"}]
    ) == [1.0]


def test_the_plot_is_by_the_length_of_the_answer(task_type: QuestionAnswering) -> None:
    from matplotlib.figure import Figure

    axes: Any = Figure().add_subplot()
    texts = ([], ["a b"], ["b c d"], ["one two three four five six seven eight nine ten"])
    targets = [make_label(*text) for text in texts]
    task_type.plot_predictions(
        axes, targets, [{"answer": ""}, {"answer": "b"}, {"answer": "c d"}, {"answer": "x"}]
    )
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert ticks == ["none\nn = 1", "2\nn = 1", "3-4\nn = 1", "9 or more\nn = 1"]
    heights = [round(bar.get_height(), 2) for bar in axes.patches]
    assert heights == [1.0, 1.0, 0.8, 0.0, 1.0, 1.0, 0.0, 0.0]


def test_a_prediction_in_a_few_words(task_type: QuestionAnswering) -> None:
    shown = {"start": 0, "end": 3, "no_answer": 0.1}
    assert task_type.describe_prediction({"answer": "Ada", "score": 0.87, **shown}) == "Ada (87%)"
    assert task_type.describe_prediction({"answer": "", "score": 0.6, **shown}) == "no answer (60%)"
    assert len(task_type.describe_prediction({"answer": "x" * 500, "score": 0.6, **shown})) < 70


def test_a_label_is_text_that_reads_back(task_type: QuestionAnswering) -> None:
    label = task_type.parse_label({"text": ["über 5 “x”"], "answer_start": [0]})
    assert json.loads(label) == {"answer_start": [0], "text": ["über 5 “x”"]}
