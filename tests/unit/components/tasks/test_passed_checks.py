"""A task that was found to work on its base is not checked again before one of the two changes."""

import json
import os
from pathlib import Path

import pytest

from lorry_components.tasks import base_checks
from lorry_components.tasks.base_checks import check_bases
from lorry_components.tasks.passed_checks import PassedChecks
from lorry_registry.errors import Fault, InvalidTaskError
from lorry_registry.tasks.task_spec import TaskSpec


def make_task(base: Path, **changes: object) -> TaskSpec:
    document = {
        "name": "reviews",
        "kind": "regression",
        "base": {"model": f"{base}/"},
        "data": {"source": "rows.jsonl"},
        "method": {"name": "lora", "r": 8},
    }
    return TaskSpec.model_validate(document | changes)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return folder


@pytest.fixture
def passed(tmp_path: Path) -> PassedChecks:
    (tmp_path / "home").mkdir()
    return PassedChecks(tmp_path / "home/cache/passed-checks")


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[TaskSpec]:
    """Return the tasks that are checked; a task called wrong does not work."""
    checked: list[TaskSpec] = []

    def check(spec: TaskSpec, folder: Path) -> None:
        checked.append(spec)
        if spec.name == "wrong":
            raise InvalidTaskError(spec.name, [Fault("method.r", "is too high")], todo="correct it")

    monkeypatch.setattr(base_checks, "check_base", check)
    return checked


def test_what_passed_is_not_checked_again(base: Path, passed: PassedChecks, checked: list[TaskSpec]) -> None:
    task = make_task(base)
    check_bases([task], passed)
    check_bases([task], passed)
    # Other rows, and another name, are the same to the base.
    check_bases([make_task(base, name="films", data={"source": "others.jsonl"})], passed)
    assert checked == [task]


def test_a_change_of_the_task_or_of_the_base_is_checked(
    base: Path, passed: PassedChecks, checked: list[TaskSpec]
) -> None:
    check_bases([make_task(base)], passed)
    check_bases([make_task(base, method={"name": "lora", "r": 9})], passed)
    check_bases([make_task(base, data={"source": "rows.jsonl", "max_length": 500})], passed)
    assert len(checked) == 3
    os.utime(base / "config.json", ns=(1, 1))
    check_bases([make_task(base)], passed)
    (base / "model.safetensors").touch()
    check_bases([make_task(base)], passed)
    assert len(checked) == 5


def test_what_failed_is_checked_again(base: Path, passed: PassedChecks, checked: list[TaskSpec]) -> None:
    for _ in range(2):
        with pytest.raises(InvalidTaskError, match="is too high"):
            check_bases([make_task(base, name="wrong")], passed)
    assert len(checked) == 2


def test_without_a_home_nothing_is_kept_and_none_is_made(
    base: Path, tmp_path: Path, checked: list[TaskSpec]
) -> None:
    home = tmp_path / "none"
    check_bases([make_task(base)], PassedChecks(home / "cache/passed-checks"))
    check_bases([make_task(base)], PassedChecks(home / "cache/passed-checks"))
    assert len(checked) == 2
    assert not home.exists()
