"""Some values of a sequence are those of a list, and are read from the sequence alone."""

from hypothesis import given
from hypothesis import strategies as st

from lorry_components.steps.evaluate.chosen_values import ChosenValues


@given(
    values=st.lists(st.integers(), max_size=30),
    data=st.data(),
)
def test_they_are_those_of_a_list(values: list[int], data: st.DataObject) -> None:
    places = sorted(data.draw(st.sets(st.integers(0, len(values) - 1)))) if values else []
    chosen, expected = ChosenValues(values, places), [values[place] for place in places]
    assert len(chosen) == len(expected)
    assert list(chosen) == expected
    cut = data.draw(st.slices(len(expected)))
    assert chosen[cut] == expected[cut]
    assert [chosen[number] for number in range(len(chosen))] == expected
    assert list(reversed(chosen)) == expected[::-1]
