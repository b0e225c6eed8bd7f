"""Some of the values of a sequence, read from it as they are asked for: of a long one, none are copied."""

from array import array
from collections.abc import Iterator, Sequence
from typing import TypeVar

from lorry_components.data.read_sequence import ReadSequence

_Value = TypeVar("_Value")


class ChosenValues(ReadSequence[_Value]):
    """The values at some places of a sequence.

    Args:
        values: The sequence, which may read each value from a file.
        places: Their places, in ascending order.
    """

    def __init__(self, values: Sequence[_Value], places: Sequence[int]) -> None:
        self._values = values
        self._places = array("Q", places)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[_Value]:
        chosen = iter(self._places)
        wanted = next(chosen, None)
        for place, value in enumerate(self._values):
            if wanted is None:
                return
            if place == wanted:
                yield value
                wanted = next(chosen, None)

    def _read(self, numbers: range) -> list[_Value]:
        # One look at a stretch of the sequence costs less than one at each place.
        chosen = self._places[numbers.start : numbers.stop]
        stretch = self._values[chosen[0] : chosen[-1] + 1]
        return [stretch[place - chosen[0]] for place in chosen]
