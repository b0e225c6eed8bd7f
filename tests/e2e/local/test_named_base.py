"""A task whose base has a logical name: pushed, trained on and predicted with, in a folder and on S3."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.manifest import MANIFEST_NAME

TEXTS = ["the film was very good", "the food was awful"]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_run_on_a_base_with_a_name(workspace: Any, s3_address: str, tmp_path: Path) -> None:
    base = tmp_path / "own"
    shutil.copytree(workspace.base, base)
    (workspace.folder / "lorry.toml").write_text('bases = "bases"\n', encoding="utf-8")
    pushed = workspace.run_json("bases", "push", base, "--name", "tiny")
    assert (pushed["model"], pushed["state"]) == ("bases:tiny", "pushed")
    # Nothing but the pushed copy is left.
    shutil.rmtree(base)
    task = workspace.write_task("mood", base={"model": "bases:tiny", "fingerprint": pushed["fingerprint"]})
    (trained,) = workspace.run_json("run", task)
    assert trained["outcome"] == "promoted"
    first = workspace.run_json("predict", "mood", *TEXTS)

    (exported,) = (workspace.store / "adapters").iterdir()
    manifest = json.loads((exported / MANIFEST_NAME).read_text("utf-8"))
    assert manifest["base"]["model"] == "bases:tiny"
    assert manifest["base"]["fingerprint"] == pushed["fingerprint"]
    for path in filter(Path.is_file, exported.rglob("*")):
        assert str(workspace.folder).encode() not in path.read_bytes(), path

    # Elsewhere the same base has another place: nothing is trained again, and the adapter finds it.
    on_s3 = f"{s3_address}/bases"
    folder = workspace.folder / "bases"
    workspace.run("bases", "push", folder / "tiny", LORRY_BASES=on_s3)
    folder.rename(tmp_path / "away")
    (again,) = workspace.run_json("run", task, LORRY_BASES=on_s3)
    assert again["outcome"] == "current"
    assert not (workspace.home / "cache" / "bases").exists()
    assert workspace.run_json("predict", "mood", *TEXTS, LORRY_BASES=on_s3) == first
    (cached,) = (path for path in (workspace.home / "cache" / "bases").iterdir() if path.is_dir())
    assert cached.name == pushed["fingerprint"].removeprefix("sha256:")
    (forced,) = workspace.run_json("run", task, "--force", LORRY_BASES=on_s3)
    # The same weights: to the byte the same adapter.
    assert forced["outcome"] == "unchanged"

    # And without a place it is said what is missing.
    refused = workspace.run("predict", "mood", *TEXTS, code=5, LORRY_BASES=str(tmp_path / "nowhere"))
    assert "there is no base 'tiny'" in refused.err
