"""Small pictures of predictions as plain data."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lorry_components.metrics.pictures import choose_points, count_confusions

CLASSES = st.sampled_from(["ham", "spam", "a|b", "é"])


@given(st.lists(st.tuples(CLASSES, CLASSES), min_size=1, max_size=60))
def test_counts_are_those_of_the_rows(pairs: list[tuple[str, str]]) -> None:
    picture = count_confusions([truth for truth, _ in pairs], [answer for _, answer in pairs])
    assert picture.rows == len(pairs) == sum(map(sum, picture.counts))
    assert picture.wrong == sum(truth != answer for truth, answer in pairs)
    for row, truth in enumerate(picture.names):
        for column, answer in enumerate(picture.names):
            assert picture.counts[row][column] == pairs.count((truth, answer))
    assert sum(each.count for each in picture.mistakes) == picture.wrong
    assert all(pairs.count((each.truth, each.answer)) == each.count for each in picture.mistakes)


def test_of_many_classes_only_the_most_frequent_mistakes_are_kept() -> None:
    truths = [f"class {number:03}" for number in range(150)] * 2
    answers = [*truths[:150], *(["class 000"] * 140), *truths[140:150]]
    picture = count_confusions([*truths, "rare", "rare"], [*answers, "class 001", "class 001"])
    assert (picture.classes, picture.names, picture.counts) == (151, (), ())
    assert len(picture.mistakes) == 12
    assert (picture.mistakes[0].truth, picture.mistakes[0].answer, picture.mistakes[0].count) == (
        "rare",
        "class 001",
        2,
    )
    assert picture.wrong == 141
    assert len(picture.model_dump_json()) < 2_000


def test_points_are_few_and_spread_over_all_rows() -> None:
    truths = np.arange(10_000, dtype=float)
    picture = choose_points(truths, truths / 3)
    assert picture.rows == 10_000
    assert len(picture.points) == 400
    assert (picture.points[0], picture.points[-1]) == ((0.0, 0.0), (9999.0, 3333.0))


def test_few_points_are_all_there() -> None:
    assert choose_points(np.array([1.0]), np.array([2.0])).points == ((1.0, 2.0),)
