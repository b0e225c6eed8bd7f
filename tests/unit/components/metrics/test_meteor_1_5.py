"""METEOR 1.5, against scores that its program gave.

``meteor_recorded.json`` holds what ``meteor-1.5.jar`` of pycocoevalcap 1.2 gave for these rows, after that
package's PTBTokenizer, as COCO's and E2E's evaluation run it: with ``-l en -norm``, all modules, and with
``-m 'exact stem' -w '1.0 0.6'`` in addition. aimagelab/speaksee tests the last row, which it does not
tokenize first, with .440.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorry_components.metrics import score_meteor_1_5
from lorry_components.metrics.meteor_1_5 import align, split_tokens

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("meteor_recorded.json").read_text("utf-8"))
ROWS: list[dict[str, Any]] = RECORDED["rows"]


def score(rows: list[dict[str, Any]]) -> float:
    scorer = score_meteor_1_5(
        [tuple(row["references"]) for row in rows], [{"text": row["text"]} for row in rows]
    )
    return scorer(np.arange(len(rows)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["text"][:30])
def test_a_row_scores_as_with_the_program(row: dict[str, Any]) -> None:
    assert score([row]) == pytest.approx(row["exact_stem"], abs=1e-12)


def test_rows_add_up_as_with_the_program() -> None:
    # One of them equals its reference: it pays for no chunk.
    assert score(ROWS) == pytest.approx(RECORDED["exact_stem"], abs=1e-12)
    assert score(ROWS) == pytest.approx(RECORDED["all_modules"], abs=0.015)


def test_some_rows_can_be_drawn() -> None:
    targets = [tuple(row["references"]) for row in ROWS]
    scorer = score_meteor_1_5(targets, [{"text": row["text"]} for row in ROWS])
    draw = [4, 4, 9]
    assert scorer(np.asarray(draw)) == pytest.approx(score([ROWS[number] for number in draw]), abs=1e-12)


def test_words_are_those_that_the_program_sees() -> None:
    assert split_tokens("It's family-friendly, isn\u2019t it? (£20-25, or 0.5 of it): they CANNOT.") == (
        *("it", "'", "s", "family", "friendly", "is", "n", "'t", "it", "-lrb-", "#", "20", "25", "or", "0.5"),
        *("of", "it", "-rrb-", "they", "can", "not"),
    )


def test_nothing_is_written() -> None:
    assert score([{"references": ["a b"], "text": ""}]) == 0.0
    assert score([{"references": [""], "text": "a b"}]) == 0.0


def test_an_alignment_has_as_few_chunks_as_there_can_be() -> None:
    # 'the' could be matched with the nearer one, in two chunks more.
    pairs = align(["the", "cat", "saw", "the", "dog"], ["saw", "the", "dog", "the", "cat"], str)
    assert {(index, place) for index, place, _ in pairs} == {(0, 3), (1, 4), (2, 0), (3, 1), (4, 2)}


def test_a_long_text_takes_no_time() -> None:
    words = [
        "the",
        "cat",
        "and",
        "the",
        "dog",
        "and",
        "a",
        "bird",
        "saw",
        "the",
        "sun",
        "over",
        "the",
        "sea",
    ] * 14
    assert len(align(words, list(reversed(words)), str)) == len(words)
