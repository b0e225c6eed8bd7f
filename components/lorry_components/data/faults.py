"""The faults of a source: all are counted, the first are listed."""

from typing import NoReturn

from lorry_registry.errors import Fault, InvalidDataError

LISTED_FAULTS = 20
_SHOWN_CHARACTERS = 60
_TODO = "correct these places in the source, or the task file's data section, and run again"


def shorten(text: str, length: int = _SHOWN_CHARACTERS) -> str:
    """Return the beginning of a text, in characters, with what cannot be printed replaced."""
    cut = text if len(text) <= length else f"{text[:length]}..."
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut)


def quote(text: str) -> str:
    """Return the beginning of a text in quotation marks, with what cannot be printed escaped."""
    cut = repr(text[:_SHOWN_CHARACTERS])
    return f"{cut}..." if len(text) > _SHOWN_CHARACTERS else cut


class FaultLog:
    """Gathers faults, so that a reader learns of all of them in one message of bounded length.

    Args:
        source: What the faults are in, as the task file names it.
        todo: What to do about them.
    """

    def __init__(self, source: str, todo: str = _TODO) -> None:
        self.source = source
        self._todo = todo
        self.total = 0
        self._of_files: list[Fault] = []
        self._of_rows: list[Fault] = []

    def add(self, where: str, what: str, remedy: str = "") -> None:
        """Note a fault of one row or line."""
        self._note(self._of_rows, Fault(where, what, remedy))

    def add_file(self, name: str, what: str, remedy: str = "") -> None:
        """Note a fault of a whole file or part. It comes before those of rows, which may follow from it."""
        self._note(self._of_files, Fault(name, what, remedy))

    def count_more(self, number: int) -> None:
        """Count faults that are not listed one by one."""
        self.total += number

    def raise_if_any(self) -> None:
        """Raise what was gathered.

        Raises:
            InvalidDataError: There is at least one fault. The first of them are listed, all are counted.
        """
        if not self.total:
            return
        listed = [*self._of_files, *self._of_rows][:LISTED_FAULTS]
        raise InvalidDataError(self.source, listed, todo=self._todo, total=self.total)

    def _note(self, faults: list[Fault], fault: Fault) -> None:
        self.total += 1
        if len(faults) < LISTED_FAULTS:
            faults.append(fault)


def refuse_source(source: str, where: str, what: str, todo: str, *, remedy: str = "") -> NoReturn:
    """Raise the one fault that keeps a source from being read at all.

    Raises:
        InvalidDataError: Always.
    """
    raise InvalidDataError(source, [Fault(where, what, remedy)], todo=todo)
