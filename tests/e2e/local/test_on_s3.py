"""A run whose adapters, ledger and outcomes are on S3, and the predictions that come of it."""

from pathlib import Path
from typing import Any

import pytest

from lorry_registry.stores import open_store

from fixtures.s3_server import SECRET_KEY, S3Server

TEXTS = ["the film was very good", "the food was awful"]


@pytest.mark.exhaustive
def test_a_run_on_s3(workspace: Any, s3_address: str, s3_server: S3Server) -> None:
    (workspace.folder / "lorry.toml").write_text(f'store = "{s3_address}"\n', encoding="utf-8")
    task = workspace.write_task("mood")
    workspace.run("run", task)
    assert not workspace.store.exists()
    (listed,) = workspace.run_json("tasks")
    assert (listed["task"], listed["version"]) == ("mood", 1)
    assert workspace.run_json("show", "mood")["uri"].startswith(f"{s3_address}/adapters/")

    first = workspace.run_json("predict", "mood", *TEXTS)
    assert len(first) == 2
    cached = workspace.home / "cache" / "adapters" / listed["adapter_id"].removeprefix("sha256:")
    for path in cached.iterdir():
        path.write_bytes(b"planted")
    assert workspace.run_json("predict", "mood", *TEXTS) == first

    (again,) = workspace.run_json("run", task)
    assert again["outcome"] == "current"
    workspace.run("verify", "--all")
    run = workspace.list_runs()[-1].name
    assert open_store(s3_address).list_children(f"runs/{run}/tasks") == ["mood"]
    for path in filter(Path.is_file, workspace.home.rglob("*")):
        assert SECRET_KEY.encode() not in path.read_bytes(), path
