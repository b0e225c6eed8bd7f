"""The list of rows that a training leaves beside its adapter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_components.data.fingerprinting import FINGERPRINTS_NAME, find_unseen_rows
from lorry_components.steps.finetune.step import finetune
from lorry_components.steps.prepare_data.step import load_part
from lorry_components.tasks.resolution import resolve_task
from lorry_registry.records.row_fingerprints import RowFingerprints


@pytest.mark.parametrize("stops_early", [False, True])
def test_a_training_keeps_the_rows_that_decided(
    make_spec: Callable[..., Any], tiny_data: Callable[[str], Path], tmp_path: Path, stops_early: bool
) -> None:
    early = {"early_stopping": {"patience": 1}} if stops_early else {"epochs": None, "steps": 1}
    spec, data = make_spec(train={"epochs": 1} | early), tiny_data("regression")
    summary = finetune(resolve_task(spec), data, tmp_path / "candidate", checkpoints=tmp_path / "checkpoints")
    content = (tmp_path / "candidate" / FINGERPRINTS_NAME).read_bytes()
    seen = RowFingerprints.parse(content, where="here")
    rows = {part: [example.row for example in load_part(data, part)] for part in ("train", "validation")}
    assert find_unseen_rows(seen, rows["train"]) == []
    # With early stopping, the validation rows chose the epoch.
    assert (find_unseen_rows(seen, rows["validation"]) == []) == stops_early
    assert summary.inputs.fingerprints_digest == seen.digest
