"""The files of a run, and its id."""

import os
from pathlib import Path

import pytest

from lorry_pipelines.local.launch import RunFolder


def test_runs_that_start_in_the_same_second_in_containers_have_other_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first process of each container has the number 1.
    monkeypatch.setattr(os, "getpid", lambda: 1)
    runs = [RunFolder.create(tmp_path / str(container)).run for container in range(100)]
    assert len(set(runs)) == 100
