"""Sequences whose items are read when they are asked for, so that of a long one none are kept."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

_Item = TypeVar("_Item")


class ReadSequence(Sequence[_Item]):
    """A sequence that reads its items somewhere. Whoever goes through it asks for parts, in order."""

    @overload
    def __getitem__(self, index: int) -> _Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[_Item]: ...

    def __getitem__(self, index: int | slice) -> _Item | list[_Item]:
        numbers = range(len(self))[index]
        return self._read(range(numbers, numbers + 1))[0] if isinstance(numbers, int) else self._read(numbers)

    @abstractmethod
    def _read(self, numbers: range) -> list[_Item]:
        """Return the items of these numbers, all of which there are, in this order."""
