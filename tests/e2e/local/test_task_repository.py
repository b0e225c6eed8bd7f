"""What ``lorry init --repository`` lays out, in a clean checkout: every line of every job runs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.slow

_PATIENCE = 480
_SHOWS_REPORT = "cat reports/report.md"


def git(folder: Path, *arguments: str) -> None:
    named = ["-c", "user.name=a test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *named, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def checkout(make_workspace: Any) -> Path:
    """A clean checkout of a branch that changes the one task of a repository, with Lorry installed in it."""
    workspace = make_workspace("repository")
    table = workspace.write_rows("reviews.jsonl", make_table())
    workspace.run("init", "--repository", "origin", table.name, "--base", str(workspace.base))
    origin = workspace.folder / "origin"
    git(origin, "init", "-q")
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "The first task")
    git(workspace.folder, "clone", "-q", str(origin), "checkout")
    folder = workspace.folder / "checkout"
    task = folder / "tasks/reviews.yaml"
    task.write_text(task.read_text("utf-8").replace("r: 8", "r: 2"), "utf-8")
    git(folder, "checkout", "-qb", "change")
    git(folder, "commit", "-qam", "A smaller rank")
    # What `make install` would fetch is this very Lorry.
    program = folder / ".venv/bin/lorry"
    program.parent.mkdir(parents=True)
    program.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from lorry_pipelines.cli import main; main()' \"$@\"\n",
        "utf-8",
    )
    program.chmod(0o755)
    (folder / ".venv/.installed").touch()
    return folder


def make_table() -> list[dict[str, Any]]:
    words = {"good": ("good", "great", "fine"), "bad": ("bad", "awful", "poor")}
    return [
        {"text": f"the {thing} was {words[label][number % 3]} {number}", "label": label}
        for number in range(40)
        for thing in ("film", "food")
        for label in ("good", "bad")
    ]


def list_jobs(folder: Path) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Yield each job with the lines that it runs and the plain values of its variables."""
    for path in sorted((folder / ".github/workflows").glob("*.yml")):
        for job, described in yaml.safe_load(path.read_text("utf-8"))["jobs"].items():
            lines = [step["run"] for step in described["steps"] if "run" in step]
            yield f"{path.stem} {job}", lines, {"GITHUB_BASE_REF": "main"}
    for job, described in yaml.safe_load((folder / ".gitlab-ci.yml").read_text("utf-8")).items():
        if isinstance(described, dict) and "script" in described:
            lines = [*described["script"], *described.get("after_script", ())]
            yield f"gitlab {job}", lines, {"CI_MERGE_REQUEST_DIFF_BASE_SHA": "origin/main"}


def list_commands(folder: Path) -> set[str]:
    """Return the commands that this Lorry has."""
    listed = subprocess.run(
        [folder / ".venv/bin/lorry", "--help"], capture_output=True, text=True, check=True, cwd=folder
    )
    return {line.split()[0] for line in listed.stdout.splitlines() if line.startswith("  ") and line.split()}


def test_every_line_of_every_job_runs(checkout: Path) -> None:
    known = list_commands(checkout)
    summary = checkout / "summary.md"
    ran, done = set(), set()
    for job, lines, variables in list_jobs(checkout):
        environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("LORRY_", "MLFLOW_"))
            },
            # An unset variable of the platform comes as an empty one.
            **dict.fromkeys(("LORRY_STORE", "MLFLOW_TRACKING_URI", "LORRY_KUBEFLOW_HOST"), ""),
            **{"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "GITHUB_STEP_SUMMARY": str(summary)},
            **variables,
        }
        for line in lines:
            target = line.split()[1] if line.startswith("make ") else ""
            if target in ("stale", "retrain", "drift") and target not in known:
                continue
            if line in done:
                # In the same checkout it would do the same again.
                continue
            if target == "report" and "retrain" not in known:
                # Nothing is registered without it, and the command says so.
                continue
            if line.startswith(_SHOWS_REPORT) and not (checkout / "reports/report.md").exists():
                # The step's own condition.
                continue
            done.add(line)
            finished = subprocess.run(
                ["bash", "-eo", "pipefail", "-c", line],
                cwd=checkout,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
            assert finished.returncode == 0, f"{job}: {line}\n{finished.stdout}\n{finished.stderr}"
            ran.add(target)
    assert {"install", "validate", "plan", "smoke"} <= ran
    assert known & {"stale", "retrain", "drift"} <= ran
    text = summary.read_text("utf-8")
    assert "| reviews |" in text
    # The smoke run kept to itself.
    if "retrain" not in known:
        assert not (checkout / ".lorry").exists()
    assert (checkout / ".smoke/store").is_dir()


def test_without_a_change_nothing_is_trained(checkout: Path) -> None:
    finished = subprocess.run(
        ["make", "--no-print-directory", "smoke", "BASE=HEAD"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert finished.stdout == "no task file differs from HEAD\n"
