"""Every error that Lorry raises on purpose, in one tree.

::

    LorryError                    1   the root: catch this to catch everything
    ├── UsageError                2   a command was given arguments that make no sense together
    ├── InvalidTaskError          3   a task file has faults; all of them are listed
    ├── InvalidDataError          4   the training data cannot be used; all faults are listed
    ├── BaseModelError            5   the frozen base is missing, incomplete or not the one expected
    ├── AdapterRejectedError      6   an adapter is damaged, unsafe, or does not fit its base
    ├── NotFoundError             7   no such task, version or adapter
    ├── ConflictError             8   another writer was first, or is running now
    ├── StoreError                9   the store cannot be read or written
    ├── TrainingError            10   training cannot start, or did not end with a usable adapter
    │   └── LostProcessError     10   a process of a training ended, or lost the others: it may work next time
    ├── MissingExtraError        11   this installation lacks an optional part
    ├── RunFailedError           12   a pipeline run ended with at least one failed task
    ├── TrackingError            13   MLflow cannot be reached, or refused
    └── ClusterError             14   Kubeflow cannot be reached, or refused

The number is the exit code of the ``lorry`` command. Every message says what is wrong, where, and what
to do next. A :class:`Fault` is one entry in the list of an InvalidTaskError or InvalidDataError; an
:class:`InvalidValueError` is the ``ValueError`` of a parser, from which such an entry is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar


class LorryError(Exception):
    """The root of the tree.

    Args:
        what: What is wrong, as a sentence without a full stop.
        where: The file, field, task or address that it concerns.
        todo: What the reader can do next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        self.what = what
        self.where = where
        self.todo = todo
        super().__init__(what, where, todo)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  -> {self.todo}" if self.todo else head

    def __reduce__(self) -> tuple[object, ...]:
        # Otherwise the keyword-only arguments are lost when an error crosses a process boundary.
        return (_rebuild_error, (type(self), self.what, self.where, self.todo))


def _rebuild_error(kind: type[LorryError], what: str, where: str, todo: str) -> LorryError:
    return kind(what, where=where, todo=todo)


class UsageError(LorryError):
    """A command was given arguments that make no sense together."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a document or a data set.

    Attributes:
        where: The field by its dotted name, or else the file, part or row.
        what: What is wrong.
        remedy: What to write instead, or another way out; "" if nothing is suggested.
        line: The line of the document, counted from 1; None if it has none.
        document: The document, if one error lists the faults of several; "" otherwise.
    """

    where: str
    what: str
    remedy: str = ""
    line: int | None = None
    document: str = ""

    @property
    def place(self) -> str:
        """The document, the line and the field, as far as they are known."""
        place = self.where if self.line is None else f"line {self.line}, {self.where}"
        return f"{self.document}: {place}" if self.document else place

    @property
    def advice(self) -> str:
        """What is wrong, and the remedy."""
        return f"{self.what}; {self.remedy}" if self.remedy else self.what

    def __str__(self) -> str:
        return f"{self.place}: {self.advice}"

    def move_into(self, document: str) -> "Fault":
        """Return the fault as one of a document among several."""
        return replace(self, document=f"{document}: {self.document}" if self.document else document)


class InvalidValueError(ValueError):
    """A value that cannot be meant, with its remedy; :func:`describe_value_error` makes it a fault again.

    Validators and parsers raise it where they know neither the field nor the document. Pydantic collects it
    like any ``ValueError``.

    Args:
        what: What is wrong.
        remedy: What to write instead.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(what, remedy)

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}" if self.remedy else self.what


def describe_value_error(error: ValueError, where: str) -> Fault:
    """Return the fault that a field, file or row has by an error; with its remedy, if the error has one."""
    if isinstance(error, InvalidValueError):
        return Fault(where, error.what, error.remedy)
    return Fault(where, str(error))


class _FaultsError(LorryError):
    """An error that lists all faults, not only the first.

    Args:
        where: The document or data set.
        faults: The faults that are listed.
        todo: What the reader can do next.
        total: How many there are, if not all of them are listed.
    """

    def __init__(
        self, where: str, faults: Sequence[Fault], *, todo: str = "", total: int | None = None
    ) -> None:
        self.faults = tuple(faults)
        self.total = len(self.faults) if total is None else total
        super().__init__(f"{self.total:,} fault{'' if self.total == 1 else 's'}", where=where, todo=todo)

    def __str__(self) -> str:
        unlisted = self.total - len(self.faults)
        lines = [f"{self.where}: {self.what}", *(f"  {fault}" for fault in self.faults)]
        lines += [f"  ...: and {unlisted:,} more"] if unlisted else []
        return "\n".join([*lines, f"  -> {self.todo}"] if self.todo else lines)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_faults_error, (type(self), self.where, self.faults, self.todo, self.total))


def _rebuild_faults_error(
    kind: type[_FaultsError], where: str, faults: Sequence[Fault], todo: str, total: int
) -> _FaultsError:
    return kind(where, faults, todo=todo, total=total)


class InvalidTaskError(_FaultsError):
    """A task file has faults; all of them are listed."""

    exit_code = 3


def raise_together(errors: Sequence[InvalidTaskError], called: str) -> None:
    """Raise the faults of several tasks as one error, each with its task; nothing if there are none.

    Args:
        errors: The errors of the tasks.
        called: What the tasks are called in the message: ``tasks`` or ``task files``.

    Raises:
        InvalidTaskError: There are some.
    """
    if len(errors) == 1:
        raise errors[0]
    if errors:
        faults = [fault.move_into(error.where) for error in errors for fault in error.faults]
        raise InvalidTaskError(f"{len(errors)} {called}", faults, todo=errors[0].todo)


class InvalidDataError(_FaultsError):
    """The training data cannot be used; all faults are listed."""

    exit_code = 4


class BaseModelError(LorryError):
    """The frozen base is missing, incomplete, or not the one that was expected."""

    exit_code = 5


class AdapterRejectedError(LorryError):
    """An adapter is damaged, unsafe, or does not fit its base."""

    exit_code = 6


class NotFoundError(LorryError):
    """No such task, version or adapter."""

    exit_code = 7


class ConflictError(LorryError):
    """Another writer was first, or is running now."""

    exit_code = 8


class StoreError(LorryError):
    """The store cannot be read or written."""

    exit_code = 9


class TrainingError(LorryError):
    """Training cannot start, or did not end with a usable adapter."""

    exit_code = 10


class LostProcessError(TrainingError):
    """A process of a training ended, or lost the others, for a reason that need not come back."""


class MissingExtraError(LorryError):
    """This installation lacks an optional part."""

    exit_code = 11


class RunFailedError(LorryError):
    """A pipeline run ended with at least one failed task."""

    exit_code = 12


class TrackingError(LorryError):
    """MLflow cannot be reached, or refused what was asked of it."""

    exit_code = 13


class ClusterError(LorryError):
    """Kubeflow cannot be reached, or refused what was asked of it."""

    exit_code = 14
