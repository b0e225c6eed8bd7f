"""Sequences whose items are read when they are asked for, so that of a long one none are kept."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

_Item = TypeVar("_Item")


class ReadSequence(Sequence[_Item]):
    """A sequence that reads its items somewhere. Iterating over it asks for parts, in order."""

    @overload
    def __getitem__(self, index: int) -> _Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[_Item]: ...

    def __getitem__(self, index: int | slice) -> _Item | list[_Item]:
        numbers = range(len(self))[index]
        if isinstance(numbers, int):
            return self._read(range(numbers, numbers + 1))[0]
        if numbers.step != 1:
            return [self[number] for number in numbers]
        return self._read(numbers) if numbers else []

    @abstractmethod
    def _read(self, numbers: range) -> list[_Item]:
        """Return the items of at least one number and those that follow it, up to the end of the range."""
