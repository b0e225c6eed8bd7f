import pickle
import re

import pytest

from lorry_registry import errors
from lorry_registry.errors import (
    Fault,
    InvalidDataError,
    InvalidTaskError,
    InvalidValueError,
    LorryError,
    LostProcessError,
    NotFoundError,
    describe_value_error,
    raise_together,
)


def _list_kinds(kind: type[LorryError] = LorryError) -> list[type[LorryError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _list_kinds(child))]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = dict(re.findall(r"(\w+Error)\s+(\d+) ", errors.__doc__ or ""))
    public = {kind for kind in _list_kinds() if not kind.__name__.startswith("_")}
    assert drawn == {kind.__name__: str(kind.exit_code) for kind in public}


def test_every_exit_code_means_one_thing() -> None:
    kinds = [kind for kind in _list_kinds() if not kind.__name__.startswith("_")]
    # A kind below another has the other's code: it is what the other means, said more exactly.
    codes = [kind.exit_code for kind in kinds if "exit_code" in vars(kind)]
    assert len(set(codes)) == len(codes)
    (inherited,) = [kind for kind in kinds if "exit_code" not in vars(kind)]
    assert inherited is LostProcessError


def test_a_message_says_what_where_and_what_to_do() -> None:
    error = NotFoundError("there is no task 'x'", where="/store", todo="did you mean 'y'?")
    assert str(error) == "/store: there is no task 'x'\n  -> did you mean 'y'?"
    assert str(NotFoundError("there is none")) == "there is none"


def test_faults_are_all_listed_and_counted() -> None:
    one = InvalidTaskError("task.yaml", [Fault("kind", "is missing")])
    two = InvalidDataError("rows", [Fault("line 1", "no text"), Fault("line 2", "no label")], todo="fix them")
    assert str(one) == "task.yaml: 1 fault\n  kind: is missing"
    assert str(two) == "rows: 2 faults\n  line 1: no text\n  line 2: no label\n  -> fix them"


@pytest.mark.parametrize(
    "error",
    [
        LorryError("what", where="where", todo="todo"),
        NotFoundError("what"),
        InvalidTaskError("file", [Fault("a", "b")], todo="todo"),
        InvalidTaskError("2 tasks", [Fault("a", "b", "c", line=3, document="file")], todo="todo"),
    ],
)
def test_an_error_survives_the_way_to_another_process(error: LorryError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own bytes
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.exit_code == error.exit_code
    assert getattr(copy, "faults", ()) == getattr(error, "faults", ())


def test_a_fault_reads_as_place_problem_and_remedy() -> None:
    fault = Fault("data.max_length", "300 tokens are too many", "write max_length: 128 or less", line=3)
    assert str(fault) == "line 3, data.max_length: 300 tokens are too many; write max_length: 128 or less"
    assert fault.advice == "300 tokens are too many; write max_length: 128 or less"
    moved = fault.move_into("a.yaml")
    assert str(moved) == f"a.yaml: {fault}"
    assert (moved.where, moved.line, moved.remedy) == (fault.where, 3, fault.remedy)
    assert moved.move_into("b").place == "b: a.yaml: line 3, data.max_length"
    assert str(Fault("file", "is a; b")) == "file: is a; b"


def test_an_error_of_a_value_keeps_its_remedy() -> None:
    error = InvalidValueError("is 3; that is odd", "write 2")
    assert str(error) == "is 3; that is odd; write 2"
    assert describe_value_error(error, "a") == Fault("a", "is 3; that is odd", "write 2")
    assert describe_value_error(ValueError("is 3; no"), "a") == Fault("a", "is 3; no")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own bytes
    assert (copy.what, copy.remedy) == (error.what, error.remedy)


def test_faults_of_several_tasks_are_one_error() -> None:
    first = InvalidTaskError("a.yaml", [Fault("kind", "is missing", line=1)], todo="try again")
    second = InvalidTaskError("b.yaml", [Fault("name", "is missing", "give one")])
    raise_together([], "tasks")
    with pytest.raises(InvalidTaskError) as caught:
        raise_together([first], "tasks")
    assert caught.value is first
    with pytest.raises(InvalidTaskError) as caught:
        raise_together([first, second], "task files")
    assert str(caught.value) == (
        "2 task files: 2 faults\n  a.yaml: line 1, kind: is missing\n  b.yaml: name: is missing; give one\n"
        "  -> try again"
    )
