from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lorry_components.data.checks import DUPLICATES_DROPPED, CheckedParts, check_parts
from lorry_components.data.examples import Example
from lorry_registry.errors import InvalidDataError

Rows = Sequence[tuple[str, str | float]]


def make(rows: Rows) -> list[Example]:
    return [Example({"text": text}, label) for text, label in rows]


def numbered(name: str, count: int, labels: Sequence[str | float] = ("x", "y")) -> Rows:
    return [(f"{name} {number}", labels[number % len(labels)]) for number in range(count)]


TRAIN, VALIDATION, TEST = numbered("train", 60), numbered("validation", 40), numbered("test", 40)
NUMBERS = (0.0, 0.5, 1.0)


def check(
    train: Rows = TRAIN, validation: Rows = VALIDATION, test: Rows = TEST, **options: Any
) -> CheckedParts:
    parts = {"train": make(train), "validation": make(validation), "test": make(test)}
    return check_parts(parts, **{"label_form": "class", "duplicates": "drop", "source": "set", **options})


def refuse(train: Rows = TRAIN, validation: Rows = VALIDATION, test: Rows = TEST, **options: Any) -> str:
    with pytest.raises(InvalidDataError) as caught:
        check(train, validation, test, **options)
    return str(caught.value)


def check_numbers(check: Callable[..., Any], **parts: Rows) -> Any:
    given = {name: numbered(name, 40, NUMBERS) for name in ("train", "validation", "test")} | parts
    return check(given["train"], given["validation"], given["test"], label_form="number")


def test_good_parts_pass_as_they_are() -> None:
    checked = check()
    assert checked.dropped == {}
    assert checked.warnings == ()
    assert checked.parts == {"train": make(TRAIN), "validation": make(VALIDATION), "test": make(TEST)}


def test_a_class_that_train_lacks() -> None:
    test = [*TEST, ("odd one", "z"), ("odd two", "z"), ("odder", "w"), ("oddest", "v"), ("last", "u")]
    message = refuse(test=test, validation=[*VALIDATION, ("new", "z")])
    assert "set: 2 faults" in message
    assert "validation: has 1 row of 1 class that train lacks ('z'): 'new'; add such rows" in message
    assert (
        "test: has 5 rows of 4 classes that train lacks ('u', 'v', 'w' and 1 more): "
        "'odd one', 'odd two', 'odder' and 2 more;" in message
    )


def test_a_class_that_a_held_out_part_lacks_is_a_warning() -> None:
    warnings = check(test=numbered("test", 40, ["x"])).warnings
    assert warnings == (
        "test has no row of 1 class that train has, 'y': how well they are predicted is not measured",
    )


def test_duplicates_are_dropped_from_train() -> None:
    repeated = [(" validation 1\n", "x"), ("test 2", "y"), ("test 2", "y"), ("test 3", "x"), ("test 4", "x")]
    checked = check([*TRAIN, *repeated])
    assert checked.parts["train"] == make(TRAIN)
    assert checked.dropped == {DUPLICATES_DROPPED: 5}
    assert checked.warnings == (
        "dropped 5 rows of train with a text of validation or test: "
        "'validation 1', 'test 2', 'test 3' and 1 more",
    )


def test_duplicates_are_refused_or_kept() -> None:
    train = [*TRAIN, ("test 2", "y")]
    message = refuse(train, duplicates="refuse")
    assert "train: has 1 row of train with a text of validation or test: 'test 2'; remove" in message
    checked = check(train, duplicates="keep")
    assert len(checked.parts["train"]) == len(train)
    assert checked.dropped == {}
    assert "kept 1 row" in checked.warnings[0]


def test_a_pair_is_the_same_only_with_both_texts() -> None:
    train = [
        Example({"text": "a", "text_pair": pair}, label)
        for pair, label in (("b", "x"), ("c", "y"), ("d", "x"))
    ]
    held_out = [Example({"text": "a", "text_pair": pair}, "x") for pair in ("d ", "e")]
    parts = {"train": train, "validation": held_out[1:], "test": held_out[:1]}
    checked = check_parts(parts, label_form="class", duplicates="drop", source="set")
    assert checked.parts["train"] == train[:2]


def test_duplicates_of_validation_and_test() -> None:
    test = [*TEST, ("validation 1", "y")]
    assert "test has 1 row with a text of validation: 'validation 1'" in check(test=test).warnings[0]
    assert "test: has 1 row with a text of validation" in refuse(test=test, duplicates="refuse")


def test_dropping_can_take_a_class_away() -> None:
    message = refuse([*TRAIN, ("test 41", "z")], test=[*TEST, ("test 41", "z")])
    assert (
        "test: has 1 row of 1 class that train lacks once duplicates of held-out rows are dropped ('z')"
        in message
    )


def test_parts_without_rows() -> None:
    message = refuse([], [], [])
    assert "set: 3 faults" in message
    assert "validation: has no rows" in message
    assert "test: has no rows" in message
    assert "train: has 0 rows; at least 2 are needed" in message
    assert "after 40 were dropped as duplicates" in refuse(TEST)


def test_few_rows_are_a_warning() -> None:
    warnings = check(validation=numbered("v", 29), test=[("t", "x")]).warnings
    assert "validation has only 29 rows: scores on it are rough" in warnings
    assert "test has only 1 row: scores on it are rough" in warnings


def test_a_single_class() -> None:
    message = refuse(numbered("train", 60, ["x"]), numbered("v", 40, ["x"]), numbered("t", 40, ["x"]))
    assert "train: has one class only, 'x', in 60 rows; there is nothing to learn" in message


def test_classes_that_look_like_something_else() -> None:
    train = [(f"train {number}", f"{number / 7:.3f}") for number in range(60)]
    checked = check(train, train[:30], train[30:], duplicates="keep")
    assert any("train has 60 classes in 60 rows" in warning for warning in checked.warnings)


def test_texts_of_two_classes_are_a_warning() -> None:
    checked = check([*TRAIN, ("train 0 ", "y"), ("train 1", "y")])
    assert checked.warnings == ("train has 1 row whose text it has with another class too: 'train 0'",)


def test_numbers_pass() -> None:
    assert check_numbers(check).warnings == ()


@pytest.mark.parametrize("value", [0.0, -3.5, 1e30])
def test_the_same_number_everywhere(value: float) -> None:
    message = check_numbers(refuse, train=numbered("train", 40, [value, value * (1 + 1e-12)]))
    assert "train: has the same label, " in message
    assert "in each of its 40 rows; there is nothing to learn" in message


def test_small_numbers_that_differ_pass() -> None:
    assert check_numbers(check, train=numbered("train", 40, [1e-12, 2e-12])).warnings == ()


def test_constant_and_dominant_numbers_are_warnings() -> None:
    checked = check_numbers(
        check,
        train=[*numbered("train", 200, [1.0]), ("other", 2.0)],
        test=numbered("test", 40, [1.0]),
    )
    assert checked.warnings == (
        "train has the label 1 in 200 of its 201 rows",
        "test has the same label, 1, in each of its 40 rows: a correlation with it is always 0",
    )


def test_long_texts_are_shortened() -> None:
    long = "x" * 100_000
    assert len(refuse([*TRAIN, (long, "x")], test=[*TEST, (long, "x")], duplicates="refuse")) < 500


def test_classes_that_are_odd_are_told() -> None:
    train = [*TRAIN, *numbered("more", 6, ["X", "NaN", "y"])]
    warnings = " ".join(check(train, VALIDATION, TEST).warnings)
    assert (
        "differ in capital letters alone, and are learned as different: 'X' in 2 rows, 'x' in 70" in warnings
    )
    assert "'NaN' is a class of 2 rows, and what programs write for a missing value" in warnings
