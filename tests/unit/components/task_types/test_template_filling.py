"""Templates with soft tokens, and how they become the numbers that a base reads."""

import re
from collections.abc import Mapping

import pytest
from transformers import BertTokenizer

from lorry_components.data.templates import (
    Slot,
    Soft,
    Words,
    count_soft_tokens,
    have_same_words,
    insert_soft_tokens,
    parse_template,
)
from lorry_components.task_types.template_filling import (
    Run,
    fill_pieces,
    find_affixes,
    find_single_token,
    split_pieces,
)
from lorry_registry.errors import TrainingError

# Liu et al. 2021, table 1: four wordings of LAMA's P17.
WORDINGS = (
    "{text} is located in {label} .",
    "{text} is located in which country or state? {label} .",
    "{text} is located in which country? {label} .",
    "{text} is located in which country? In {label} .",
)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "e", "is", "in", ".", "##d"]


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})


def read(ids: list[list[int]]) -> list[list[str]]:
    return [[f"P{-number}" if number < 0 else WORDS[number] for number in piece] for piece in ids]


def test_a_template_has_parts() -> None:
    assert parse_template("[P]*3 {text}[P] is {{in}} {label}.") == (
        Soft(0, 3),
        Words(" "),
        Slot("text"),
        Soft(3, 1),
        Words(" is {"),
        Words("in}"),
        Words(" "),
        Slot("label"),
        Words("."),
    )
    assert Soft(3, 2).ids == [-4, -5]


@pytest.mark.parametrize(
    ("template", "what"),
    [
        ("{text} {labl}", "there is no {labl}"),
        ("{text!r}", "takes no format"),
        ("{text:>8}", "takes no format"),
        ("{text", "expected '}'"),
        ("{} is", "there is no {}"),
        ("[P]*0 {text}", "leave it out"),
        ("[P]*4000 [P]*97", "more than 4096"),
    ],
)
def test_what_is_no_template(template: str, what: str) -> None:
    with pytest.raises(ValueError, match=re.escape(what)):
        parse_template(template)


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("tokens", [1, 3])
def test_soft_tokens_stand_around_the_subject_and_before_the_object(wording: str, tokens: int) -> None:
    softened = insert_soft_tokens(wording, tokens)
    parts = parse_template(softened)
    assert count_soft_tokens(parts) == 3 * tokens
    assert have_same_words(softened, wording)
    task_types = [part for part in parts if not isinstance(part, Words)]
    assert [type(part) for part in task_types] == [Soft, Slot, Soft, Soft, Slot]
    assert not have_same_words(softened, wording.replace("located", "situated"))


def test_runs_that_meet_are_one() -> None:
    assert insert_soft_tokens("{text} {label}", 2) == "[P]*2 {text} [P]*2 {label}"


def test_pieces_are_filled(tokenizer: BertTokenizer) -> None:
    pieces = split_pieces(parse_template("[P] {text} is [P]*2 in {label} ."))
    assert [type(piece) for piece in pieces] == [Soft, Run, Soft, Run, type(None), Run]
    (found,) = fill_pieces(tokenizer, pieces, [{"text": "a bd"}], room=20)
    assert read(found) == [["P1"], ["a", "b", "##d", "is"], ["P2", "P3"], ["in"], [], ["."]]
    assert find_affixes(tokenizer) == ([2], [3])


def test_a_long_text_is_cut_and_not_the_words(tokenizer: BertTokenizer) -> None:
    pieces = split_pieces(parse_template("{text} is [P] in {text_pair} ."))
    row = {"text": "a b c d e a b c", "text_pair": "e e"}
    (found,) = fill_pieces(tokenizer, pieces, [row], room=9)
    assert read(found) == [["a", "b", "c", "is"], ["P1"], ["in", "e", "e", "."]]
    with pytest.raises(TrainingError, match="the template takes 1 tokens more than there is room for"):
        list(fill_pieces(tokenizer, pieces, [row], room=3))


@pytest.mark.parametrize(
    ("word", "expected"), [("b", "b"), ("bd", None), ("zoo", None), ("[UNK]", None), ("", None)]
)
def test_a_single_token(tokenizer: BertTokenizer, word: str, expected: str | None) -> None:
    found: Mapping[bool, int | None] = {
        space: find_single_token(tokenizer, word, after_space=space) for space in (True, False)
    }
    assert all(number == (None if expected is None else WORDS.index(expected)) for number in found.values())
