"""Some of the values of a sequence, read from it as they are asked for: of a long one, none are copied."""

from array import array
from collections.abc import Iterator, Sequence
from typing import TypeVar, overload

_Value = TypeVar("_Value")


class ChosenValues(Sequence[_Value]):
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

    @overload
    def __getitem__(self, index: int) -> _Value: ...

    @overload
    def __getitem__(self, index: slice) -> list[_Value]: ...

    def __getitem__(self, index: int | slice) -> _Value | list[_Value]:
        if isinstance(index, int):
            return self._values[self._places[index]]
        chosen = self._places[index]
        if not chosen:
            return []
        # One look at a stretch of the sequence costs less than one at each place.
        first, last = min(chosen), max(chosen)
        stretch = self._values[first : last + 1]
        return [stretch[place - first] for place in chosen]

    def __iter__(self) -> Iterator[_Value]:
        chosen = iter(self._places)
        wanted = next(chosen, None)
        for place, value in enumerate(self._values):
            if wanted is None:
                return
            if place == wanted:
                yield value
                wanted = next(chosen, None)
