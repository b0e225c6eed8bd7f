"""Which rows a training saw: by their texts, by their context, or by their image."""

from lorry_components.data.examples import Example
from lorry_components.data.fingerprinting import collect_fingerprints, find_unseen_rows
from lorry_components.data.rows import IMAGE, DataForm

SALT = "sha256:" + "5" * 64


def ask(question: str, context: str) -> Example:
    return Example({"text": question, "text_pair": context}, "an answer")


def find(examples: list[Example], form: DataForm, rows: list[dict[str, str]]) -> list[int]:
    made = collect_fingerprints({"train": examples, "test": []}, form, trained=("train",), salt=SALT)
    return find_unseen_rows(made, rows)


def test_a_row_is_known_by_its_texts_whatever_its_label_and_the_space_around_it() -> None:
    form = DataForm("class")
    trained = [Example({"text": "good"}, "yes"), Example({"text": "bad"}, "no")]
    assert find(trained, form, [{"text": " good\n"}, {"text": "fine"}, {"text": "bad"}]) == [1]
    pairs = [ask("a", "b")]
    assert find(pairs, form, [{"text": "a", "text_pair": "c"}, {"text": "a", "text_pair": "b"}]) == [0]


def test_by_context_every_question_about_a_known_one_was_seen() -> None:
    form = DataForm("text", by_context=True)
    trained = [ask(f"question {number}", f"context {number}") for number in range(3)]
    rows = [{"text": "another", "text_pair": "context 1"}, {"text": "question 1", "text_pair": "new"}]
    assert find(trained, form, rows) == [1]
    # One or two contexts are in all parts: then only the questions differ.
    rows = [{"text": "another", "text_pair": "context 1"}, {"text": "question 1", "text_pair": "context 1"}]
    assert find(trained[:2], form, rows) == [0]


def test_an_image_is_known_whatever_its_prompt_is() -> None:
    trained = [Example({"text": "a dog", IMAGE: "AAAA"}, "dog.png")]
    rows = [{"text": "a cat", IMAGE: "AAAA"}, {"text": "a dog", IMAGE: "BBBB"}]
    assert find(trained, DataForm("text"), rows) == [1]
