"""Metrics of written text, against the libraries that have them, published examples, and sums by hand."""

import math
import random

import numpy as np
import pytest

from lorry_components.metrics import (
    score_bleu,
    score_cider,
    score_exact_match,
    score_meteor,
    score_nist,
    score_rouge_l,
    score_sql_match,
)
from lorry_components.metrics.base import Metric
from lorry_components.metrics.matching import normalise_sql
from lorry_components.metrics.meteor import count_matches
from lorry_components.metrics.rouge import count_common
from lorry_components.metrics.words import split_words

WORDS = ("the", "a", "cat", "sat", "on", "mat", "dog", "ran", "far", "away", "Eagle", "near", "river", "food")
# The example of Papineni et al. 2002, whose figures NLTK's documentation prints.
GUIDE = (
    "It is a guide to action which ensures that the military always obeys the commands of the party",
    (
        "It is a guide to action that ensures that the military will forever heed Party commands",
        "It is the guiding principle which guarantees the military forces always being under the command of "
        "the Party",
        "It is the practical guide for the army always to heed the directions of the party",
    ),
)
ALL = (score_bleu, score_nist, score_meteor, score_rouge_l, score_cider, score_exact_match, score_sql_match)


def score(metric: Metric, targets: list[str | tuple[str, ...]], texts: list[str]) -> float:
    return metric(targets, [{"text": text} for text in texts])(np.arange(len(texts)))


def make_corpus(rows: int, references: int, seed: int = 0) -> tuple[list[tuple[str, ...]], list[str]]:
    chance = random.Random(seed)  # noqa: S311
    targets, texts = [], []
    for _ in range(rows):
        words = [chance.choice(WORDS) for _ in range(chance.randint(5, 14))]
        targets.append(tuple(_vary(words, chance) for _ in range(references)))
        texts.append(_vary(words, chance))
    return targets, texts


def _vary(words: list[str], chance: random.Random) -> str:
    kept = [word if chance.random() < 0.8 else chance.choice(WORDS) for word in words]
    return " ".join(kept[: chance.randint(4, len(kept))]) + "."


@pytest.mark.parametrize("references", [1, 3])
def test_bleu_is_that_of_sacrebleu(references: int) -> None:
    from sacrebleu.metrics import BLEU

    targets, texts = make_corpus(40, references)
    streams = [[found[index] for found in targets] for index in range(references)]
    expected = BLEU().corpus_score(texts, streams).score / 100
    assert 0.1 < expected < 0.9
    assert score(score_bleu, list(targets), texts) == pytest.approx(expected, abs=1e-12)
    # Some rows of it, one twice, are that corpus.
    draw = [3, 3, 17, 8]
    drawn = BLEU().corpus_score([texts[i] for i in draw], [[one[i] for i in draw] for one in streams])
    scorer = score_bleu(targets, [{"text": text} for text in texts])
    assert scorer(np.asarray(draw)) == pytest.approx(drawn.score / 100, abs=1e-12)


def test_nist_of_one_reference_is_that_of_nltk() -> None:
    from nltk.translate.nist_score import corpus_nist

    targets, texts = make_corpus(40, 1)
    tokens = [[found[0].lower().replace(".", " .").split()] for found in targets]
    expected = corpus_nist(tokens, [text.lower().replace(".", " .").split() for text in texts])
    assert expected > 1
    assert score(score_nist, list(targets), texts) == pytest.approx(expected, rel=1e-9)


def test_nist_of_two_references_by_hand() -> None:
    # Words of the references: a b | a b c d, six in all; a and b twice, c and d once.
    # Orders: 'a' and 'b' tell log2(6/2) each, 'c' log2(6/1); 'a b' log2(2/2), 'b c' log2(2/1); 'a b c' 1 bit.
    found = score(score_nist, [("a b", "a b c d")], ["a b c"])
    told = (2 * math.log2(3) + math.log2(6)) / 3 + (0 + 1) / 2 + 1 / 1
    # As long as the references are on average: no penalty.
    assert found == pytest.approx(told)
    # Two words of three: the penalty is a half.
    short = (2 * math.log2(3)) / 2 + 0 / 1
    assert score(score_nist, [("a b", "a b c d")], ["a b"]) == pytest.approx(0.5 * short)


def test_cider_is_that_of_coco_by_hand() -> None:
    targets = ["a b c", "a d"]
    # Weights are log(rows / rows that have it): 'a' is in both and weighs nothing, all else log 2.
    # 'a b e': in order 1 it shares b of {b, e} with {b, c}: 1/2 (e is in no reference, and weighs log 2).
    # In order 2 it shares 'a b' of two with two: 1/2; in order 3 and 4 nothing. As long as its reference.
    one = 10 * (1 / 2 + 1 / 2) / 4
    # 'a d' is its reference: 1 in orders 1 and 2, and there are no longer ones.
    two = 10 * (1 + 1) / 4
    assert score(score_cider, list(targets), ["a b e", "a d"]) == pytest.approx((one + two) / 2)
    # 'a d a d': counts are clipped to the reference's. In order 1 d twice against once: 1/2. In order 2 'a d'
    # twice and 'd a' against 'a d': 1 of sqrt(5). Two pairs of words too many cost exp(-4 / 72).
    doubled = 10 * (1 / 2 + 1 / math.sqrt(5)) / 4 * math.exp(-4 / 72)
    found = score(score_cider, list(targets), ["a b c", "a d a d"])
    assert found == pytest.approx((10 * 3 / 4 + doubled) / 2)


def test_cider_takes_the_mean_over_references() -> None:
    both = score(score_cider, [("a b c", "x y z"), "k l m"], ["a b c", "k l m"])
    assert both == pytest.approx((10 * 3 / 4 / 2 + 10 * 3 / 4) / 2)


def test_rouge_l_by_hand() -> None:
    # The example of Lin 2004: 'police killed the gunman' with 'police kill the gunman': 3 of 4 and 3 of 4.
    assert score(score_rouge_l, ["police killed the gunman"], ["police kill the gunman"]) == pytest.approx(
        3 / 4
    )
    assert score(score_rouge_l, ["police killed the gunman"], ["the gunman kill police"]) == pytest.approx(
        2 / 4
    )
    # The best precision and the best recall may be of different references.
    precision, recall = 3 / 4, 2 / 2
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert score(score_rouge_l, [("a b c x y z", "a d")], ["a b c d"]) == pytest.approx(expected)


def test_the_longest_common_subsequence_is_that_of_all_subsequences() -> None:
    chance = random.Random(1)  # noqa: S311

    def list_subsequences(words: str) -> set[str]:
        found = {""}
        for word in words:
            found |= {kept + word for kept in found}
        return found

    for _ in range(50):
        first, second = ("".join(chance.choices("abc", k=chance.randint(0, 8))) for _ in range(2))
        expected = max(map(len, list_subsequences(first) & list_subsequences(second)))
        assert count_common(first, second) == expected


def test_meteor_by_the_formula_of_the_paper() -> None:
    # Banerjee and Lavie 2005, section 2.2: 'the president spoke to the audience' against 'the president then
    # spoke to the audience' has two chunks of six matches.
    text, reference = "the president spoke to the audience", "the president then spoke to the audience"
    assert count_matches(reference, text, str) == (6, 2, 6, 7)
    precision, recall = 6 / 6, 6 / 7
    mean = 10 * precision * recall / (recall + 9 * precision)
    expected = mean * (1 - 0.5 * (2 / 6) ** 3)
    assert score(score_meteor, [reference], [text]) == pytest.approx(expected)


class NoSynonyms:
    """A WordNet that knows no word."""

    def synsets(self, _word: str) -> list[str]:
        return []


def test_meteor_is_that_of_nltk_without_synonyms() -> None:
    from nltk.translate.meteor_score import single_meteor_score

    chance = random.Random(2)  # noqa: S311
    for _ in range(30):
        # No word twice: which one to align with is where the two differ.
        reference, text = (chance.sample(WORDS, chance.randint(3, 9)) for _ in range(2))
        expected = single_meteor_score(reference, text, wordnet=NoSynonyms())
        assert score(score_meteor, [" ".join(reference)], [" ".join(text)]) == pytest.approx(expected)
    text, references = GUIDE
    for whole in references:
        expected = single_meteor_score(whole.split(), text.split(), wordnet=NoSynonyms())
        found = score(score_meteor, [whole], [text])
        assert expected - 1e-9 < found < expected + 0.06


def test_meteor_aligns_in_as_few_chunks_as_there_can_be() -> None:
    chance = random.Random(3)  # noqa: S311
    extra = 0
    for _ in range(60):
        text, reference = ([chance.choice("abcd") for _ in range(6)] for _ in range(2))
        matches, chunks, _, _ = count_matches(" ".join(reference), " ".join(text), str)
        best = _align_best(text, reference)
        assert matches == best[0]
        extra += chunks - best[1]
    # A single pass finds nearly always the fewest.
    assert 0 <= extra <= 12


def _align_best(text: list[str], reference: list[str]) -> tuple[int, int]:
    """Return the most matches of all alignments, and the fewest chunks with so many."""
    found: list[tuple[int, int]] = []

    def extend(index: int, free: frozenset[int], last: int, matches: int, chunks: int) -> None:
        if index == len(text):
            found.append((-matches, chunks))
            return
        extend(index + 1, free, -2, matches, chunks)
        for place in free:
            if reference[place] == text[index]:
                extend(index + 1, free - {place}, place, matches + 1, chunks + (place != last + 1))

    extend(0, frozenset(range(len(reference))), -2, 0, 0)
    matches, chunks = min(found)
    return -matches, chunks


def test_meteor_matches_stems() -> None:
    from nltk.stem.porter import PorterStemmer

    assert count_matches("it serves foods", "it served food", PorterStemmer().stem)[:2] == (3, 1)
    assert score(score_meteor, ["the restaurants"], ["the restaurant"]) > 0.9


def test_meteor_adds_up_over_rows() -> None:
    # Not the mean of the rows' scores: two of the ten words of all rows match.
    found = score(score_meteor, ["a b c d", "e f g h i j"], ["a b", "x y z v"])
    precision, recall = 2 / 6, 2 / 10
    assert found == pytest.approx(
        10 * precision * recall / (recall + 9 * precision) * (1 - 0.5 * (1 / 2) ** 3)
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("SELECT Notes FROM 1-1 WHERE A = 'x'", "select notes from 2-7 where a = 'X'"),
        ("SELECT Notes FROM t WHERE A = 'x' AND B > 3", "SELECT Notes FROM t WHERE B > 3 AND A = 'x'"),
        ("SELECT COUNT No. FROM t WHERE A = 'x'", "SELECT COUNT(No.) FROM t WHERE A='x' ;"),
        ('SELECT A FROM t WHERE B = "x y"', "SELECT  A  FROM t\nWHERE B = 'x y'"),
        ("SELECT A FROM t WHERE B = '3'", "SELECT A FROM t WHERE B = 3"),
        ("SELECT A FROM t WHERE B = \u2018x\u2019", "SELECT A FROM t WHERE B = 'x'"),
    ],
)
def test_equal_queries(first: str, second: str) -> None:
    assert normalise_sql(first) == normalise_sql(second)
    assert score(score_sql_match, [first], [second]) == 1


@pytest.mark.parametrize(
    "other",
    [
        "SELECT B FROM t WHERE C = 'x'",
        "SELECT A FROM t WHERE C = 'y'",
        "SELECT A FROM t WHERE D = 'x'",
        "SELECT A FROM t WHERE C > 'x'",
        "SELECT COUNT A FROM t WHERE C = 'x'",
        "SELECT A FROM t",
        "SELECT A FROM t WHERE C = 'x' AND D = 'y'",
        "A FROM t WHERE C = 'x'",
        "",
    ],
)
def test_other_queries(other: str) -> None:
    assert score(score_sql_match, ["SELECT A FROM t WHERE C = 'x'"], [other]) == 0


def test_a_value_may_hold_words_of_the_language() -> None:
    query = "SELECT A FROM t WHERE B = 'rock and roll' AND C = 'from where'"
    assert score(score_sql_match, [query], [query]) == 1
    assert score(score_sql_match, [query], [query.replace("roll", "rolls")]) == 0


def test_an_exact_match_is_of_any_reference_but_for_white_space() -> None:
    assert score(score_exact_match, [("one", "two words"), "no"], [" two  words\n", "No"]) == 0.5


@pytest.mark.parametrize("metric", ALL)
def test_an_empty_text_scores_nothing_and_a_right_one_most(metric: Metric) -> None:
    targets: list[str | tuple[str, ...]] = [GUIDE[1], "the cat sat on the mat", "a dog ran far away"]
    right = score(metric, targets, [GUIDE[1][0], "the cat sat on the mat", "a dog ran far away"])
    assert score(metric, targets, ["", "", ""]) == 0
    mixed = score(metric, targets, [GUIDE[0], "the cat", "dogs"])
    assert 0 <= mixed < right
    if metric not in (score_nist, score_cider):
        assert right == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("metric", ALL)
def test_a_scorer_scores_any_rows(metric: Metric) -> None:
    targets, texts = make_corpus(12, 2)
    texts[0] = targets[0][1]
    scorer = metric(targets, [{"text": text} for text in texts])
    everything = scorer(np.arange(12))
    assert scorer(np.arange(12)[::-1]) == pytest.approx(everything)
    assert scorer(np.asarray([0] * 5)) == pytest.approx(scorer(np.asarray([0])))
    assert all(math.isfinite(scorer(np.asarray([row]))) for row in range(12))


def test_words_are_without_punctuation() -> None:
    assert split_words("It's a family-friendly pub, 'The Eagle' (£20-25)!") == [
        *("it's", "a", "family-friendly", "pub", "the", "eagle", "20-25"),
    ]
