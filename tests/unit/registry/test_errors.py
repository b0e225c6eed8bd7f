import pickle
import re

import pytest

from lorry_registry import errors
from lorry_registry.errors import Fault, InvalidDataError, InvalidTaskError, LorryError, NotFoundError


def _list_kinds(kind: type[LorryError] = LorryError) -> list[type[LorryError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _list_kinds(child))]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = dict(re.findall(r"(\w+Error)\s+(\d+) ", errors.__doc__ or ""))
    public = {kind for kind in _list_kinds() if not kind.__name__.startswith("_")}
    assert drawn == {kind.__name__: str(kind.exit_code) for kind in public}


def test_every_exit_code_means_one_thing() -> None:
    codes = [kind.exit_code for kind in _list_kinds() if not kind.__name__.startswith("_")]
    assert len(set(codes)) == len(codes)


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
    ],
)
def test_an_error_survives_the_way_to_another_process(error: LorryError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own bytes
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.exit_code == error.exit_code
