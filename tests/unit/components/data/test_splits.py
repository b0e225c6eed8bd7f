from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from lorry_components.data.examples import Example
from lorry_components.data.splits import limit_parts, split_examples
from lorry_components.task_types import LabelForm
from lorry_registry.tasks.input_specs import PartLimits, SeededSplit

PARTS = ("train", "validation", "test")

texts = st.text(alphabet="abc é\n", min_size=1, max_size=4).filter(str.strip)
examples = st.builds(
    lambda text, pair, label: Example({"text": text} | ({} if pair is None else {"text_pair": pair}), label),
    texts,
    st.none() | texts,
    st.sampled_from("xyz"),
)
splits = st.builds(
    SeededSplit,
    validation=st.floats(0.01, 0.4),
    test=st.floats(0.01, 0.4),
    seed=st.integers(-(2**70), 2**70),
)
thorough = settings(max_examples=200, deadline=None, database=None)


forms = st.sampled_from(["class", "number", "text"])


def count(table: Sequence[Example]) -> Counter[str]:
    return Counter(repr(example) for example in table)


def find_sides(parts: dict[str, list[Example]]) -> dict[tuple[str, str], str]:
    return {example.key: part for part in PARTS for example in parts[part]}


@thorough
@given(st.lists(examples, max_size=40), splits, forms)
def test_the_parts_are_a_partition(table: list[Example], split: SeededSplit, label_form: LabelForm) -> None:
    parts = split_examples(table, split, label_form=label_form)
    assert tuple(parts) == PARTS
    assert sum((count(parts[part]) for part in PARTS), Counter()) == count(table)
    keys = [{example.key for example in parts[part]} for part in PARTS]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]


@thorough
@given(st.lists(examples, max_size=40), splits, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(table: list[Example], split: SeededSplit, random: object) -> None:
    shuffled = list(table)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one = split_examples(table, split, label_form="class")
    other = split_examples(shuffled, split, label_form="class")
    assert {part: count(one[part]) for part in PARTS} == {part: count(other[part]) for part in PARTS}


@thorough
@given(st.lists(examples, max_size=40), st.lists(examples, max_size=20), splits, forms)
def test_appended_rows_move_next_to_none(
    table: list[Example], more: list[Example], split: SeededSplit, label_form: LabelForm
) -> None:
    before = find_sides(split_examples(table, split, label_form=label_form))
    after = find_sides(split_examples([*table, *more], split, label_form=label_form))
    moved = [key for key, side in before.items() if after[key] != side]
    # At most one text of each class and part was moved to have the class there, and moves back or on.
    classes = len({example.label for example in [*table, *more]}) if label_form == "class" else 1
    assert len(moved) <= 2 * len(PARTS) * classes


@settings(thorough, max_examples=20)
@given(st.integers(), st.integers(0, 300))
def test_appended_rows_move_none_in_a_larger_table(seed: int, more: int) -> None:
    table = [Example({"text": f"text {number}"}, float(number)) for number in range(700 + more)]
    split = SeededSplit(seed=seed)
    before = find_sides(split_examples(table[:700], split, label_form="number"))
    after = find_sides(split_examples(table, split, label_form="number"))
    assert all(after[key] == side for key, side in before.items())


@thorough
@given(st.lists(st.tuples(texts, st.sampled_from("xyz")), max_size=40), splits)
def test_each_class_is_where_it_can_be(rows: list[tuple[str, str]], split: SeededSplit) -> None:
    one_class_each = dict(rows)
    table = [Example({"text": f"{text}{label}"}, label) for text, label in one_class_each.items()]
    sizes = Counter({label: len({e.key for e in table if e.label == label}) for label in "xyz"})
    parts = split_examples(table, split, label_form="class")
    for label, size in sizes.items():
        present = {part for part in PARTS if any(example.label == label for example in parts[part])}
        if size >= 3:
            assert present == set(PARTS)
        elif size:
            assert "train" in present


@thorough
@given(st.lists(examples, min_size=1, max_size=40), splits)
def test_train_has_every_class_even_of_shared_texts(table: list[Example], split: SeededSplit) -> None:
    parts = split_examples(table, split, label_form="class")
    assert {example.label for example in parts["train"]} == {example.label for example in table}


def test_the_same_seed_draws_the_same_for_ever() -> None:
    table = [Example({"text": f"text {number}"}, float(number)) for number in range(40)]
    parts = split_examples(table, SeededSplit(seed=7), label_form="number")
    drawn = {part: [int(example.label) for example in parts[part]] for part in ("validation", "test")}
    assert drawn == {"validation": [15, 16, 21, 27, 28], "test": [2, 4, 12, 31]}
    other = split_examples(table, SeededSplit(seed=8), label_form="number")
    assert find_sides(parts) != find_sides(other)


def test_the_shares_are_met_on_average() -> None:
    table = [Example({"text": f"text {number}"}, float(number)) for number in range(10_000)]
    parts = split_examples(table, SeededSplit(validation=0.1, test=0.2), label_form="number")
    assert abs(len(parts["validation"]) - 1000) < 100
    assert abs(len(parts["test"]) - 2000) < 150


def test_white_space_around_a_text_does_not_make_it_another() -> None:
    table = [Example({"text": text}, 0.0) for text in ("a", " a", "a\n", "b", "c", "d")]
    sides = [
        part for part, rows in split_examples(table, SeededSplit(), label_form="number").items() for _ in rows
    ]
    assert len(sides) == 6
    parts = split_examples(table, SeededSplit(), label_form="number")
    assert sum(any(row.row["text"].strip() == "a" for row in rows) for rows in parts.values()) == 1


def test_a_limit_keeps_the_same_rows_when_others_are_added() -> None:
    table = [Example({"text": f"text {index}"}, "a") for index in range(500)]
    limits = PartLimits(train=100, seed=3)
    kept = limit_parts({"train": table[:400], "test": table[400:]}, limits)
    assert len(kept["train"]) == 100
    assert kept["test"] == table[400:]
    assert kept["train"] == sorted(kept["train"], key=table.index), "the order is not that of the table"
    again = limit_parts({"train": [*table[:400], *table[400:440]]}, limits)["train"]
    assert len(set(map(repr, again)) & set(map(repr, kept["train"]))) > 80
    assert limit_parts({"train": table}, PartLimits(train=100, seed=4))["train"] != again
    assert limit_parts({"train": table[:50]}, limits)["train"] == table[:50]
