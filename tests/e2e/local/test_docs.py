"""The console blocks of README.md and docs/ that say nothing else, run as a reader types them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore

from fixtures.adapters import enroll, write_adapter
from fixtures.doc_blocks import Block, read_blocks
from fixtures.s3_server import find_ports

(_PORT,) = find_ports(1)
# What a page leaves to its reader, and what the commands would ask for.
_FILLED_IN = (
    ("--reason …", "--reason replaced --yes"),
    ('--reason "replaced by ratings"', '--reason "replaced by ratings" --yes'),
    ("PASSWORD=…", "PASSWORD=secret"),
    ("s3://my-bucket/lorry/bases", "./shared-bases"),
    ("# lorry restore brings it back", "\nlorry restore reviews"),
    (".venv/bin/lorry serve", f"lorry serve --port {_PORT}"),
    (":8080/tasks/sentiment-products", f":{_PORT}/tasks/reviews"),
)
RUN = [block for block in read_blocks() if not block.reason]
PAGES = sorted({block.page for block in RUN})


@pytest.fixture(scope="module")
def library(make_workspace: Callable[[str], Any]) -> Any:
    """A workspace with three versions of ``reviews``, and the files that the pages read.

    The first, which predicts, is the champion; the others are trained by nobody.
    """
    workspace = make_workspace("docs")
    workspace.run("run", workspace.write_task("reviews"))
    registry = Registry(LocalStore(workspace.store), workspace.home / "cache")
    for seed in (2, 3):
        adapter = write_adapter(workspace.folder / f"adapter-{seed}", seed=seed)
        enroll(registry, adapter, promote=False, judged_champion=1, reasons=("it is not better",), by="ann")
    (workspace.folder / "texts.txt").write_text("the film was good\nthe film was bad\n")
    (workspace.folder / "new.csv").write_text("id,text\n1,the film was good\n2,the food was poor\n")
    (workspace.folder / "minilm").symlink_to(workspace.base)
    return workspace


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_as_printed(library: Any, page: str) -> None:
    blocks = [block for block in RUN if block.page == page]
    # What a page starts in the background ends with its script.
    script = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "".join(map(_fill_in, blocks))
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=library.folder,
        env=library.build_environment(PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=480,
    )
    assert finished.returncode == 0, f"{script}\n{finished.stdout}\n{finished.stderr}"
    for check in CHECKS.get(page, ()):
        check(library.folder, finished.stdout)


def _fill_in(block: Block) -> str:
    script = block.script
    for written, meant in _FILLED_IN:
        script = script.replace(written, meant)
    return script


def _has_predictions(folder: Path, _printed: str) -> None:
    lines = (folder / "predicted.csv").read_text("utf-8").splitlines()
    assert lines[0] == "id,text,predicted_label,predicted_score,predicted_scores"
    assert len(lines) == 3
    (folder / "predicted.csv").unlink()


def _was_answered(_folder: Path, printed: str) -> None:
    (answer,) = json.loads(printed)
    assert answer["text"] == "Great value!"
    assert answer["label"] in answer["scores"]


def _has_page(folder: Path, _printed: str) -> None:
    assert "reviews" in (folder / "tasks.html").read_text("utf-8")


def _has_adapter(folder: Path, _printed: str) -> None:
    assert (folder / "reviews-adapter" / "adapter_model.safetensors").exists()


CHECKS: dict[str, tuple[Callable[[Path, str], None], ...]] = {
    "README.md": (_was_answered,),
    "docs/registry.md": (_has_predictions,),
    "docs/predict.md": (_has_predictions,),
    "docs/mlflow.md": (_has_page,),
    "docs/peft.md": (_has_adapter,),
}
