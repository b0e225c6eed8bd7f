"""The compiled pipeline: a file that Kubeflow takes, and that runs without the ``lorry`` command."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import yaml

from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_references import read_task

# Kubeflow alone, as somebody would run the file on a laptop.
RUN = """
import json, sys, warnings
warnings.simplefilter("ignore")
from kfp import components, local

if __name__ == "__main__":
    pipeline = components.load_component_from_file("lorry.yaml")
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root="work", raise_on_error=True)
    pipeline(**json.loads(sys.argv[1]))
"""


def compile_tasks(workspace: Any, *arguments: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pipeline's own document and the one for Kubernetes."""
    workspace.run(
        "compile",
        *arguments,
        "--target",
        "local",
        "-o",
        "lorry.yaml",
        LORRY_IMAGE="registry.example/lorry@sha256:12",
    )
    documents = list(yaml.safe_load_all((workspace.folder / "lorry.yaml").read_text("utf-8")))
    return documents[0], documents[1] if len(documents) > 1 else {}


def find_tasks(workspace: Any, *files: str) -> list[str]:
    """Return tasks as the pipeline takes them."""
    return [json.dumps(task) for task in workspace.run_json("validate", *files)]


def run_file(workspace: Any, arguments: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "run.py", json.dumps(arguments)],
        cwd=workspace.folder,
        env=workspace.build_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_tasks_they_are_a_parameter(workspace: Any) -> None:
    pipeline, _ = compile_tasks(workspace)
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    assert parameters["tasks"].pop("description").startswith("The tasks: ")
    assert parameters["tasks"] == {"defaultValue": [], "isOptional": True, "parameterType": "LIST"}
    assert parameters["store"]["defaultValue"] == str(workspace.store)
    assert parameters["force"]["defaultValue"] is False
    executors = pipeline["deploymentSpec"]["executors"]
    images = {name: executor["container"]["image"] for name, executor in executors.items()}
    assert set(images.values()) == {"registry.example/lorry@sha256:12"}
    steps = ["evaluate", "finetune", "gate", "prepare-data", "register", "report", "verdict"]
    assert sorted(images) == [f"exec-{step}" for step in steps]
    for executor in executors.values():
        assert "pip install" not in json.dumps(executor)
    assert not list(workspace.folder.glob(".lorry.*"))


def test_tasks_of_one_kind_of_node_are_the_default(workspace: Any) -> None:
    for name in ("films", "books"):
        workspace.write_task(name)
    pipeline, _ = compile_tasks(workspace, "films.yaml", "books.yaml", "--set", "train.seed=5")
    references = pipeline["root"]["inputDefinitions"]["parameters"]["tasks"]["defaultValue"]
    store = LocalStore(workspace.store)
    specs = [read_task(reference, store) for reference in references]
    assert [spec.name for spec in specs] == ["films", "books"]
    assert {spec.train.seed for spec in specs} == {5}
    assert [spec.data.source for spec in specs] == [
        str(workspace.folder / f"{name}.jsonl") for name in ("films", "books")
    ]


def test_for_a_cluster_what_is_on_this_machine_is_refused(workspace: Any) -> None:
    workspace.write_task("films")
    refused = workspace.run("compile", "films.yaml", "-o", "lorry.yaml", code=3).err
    for place in ("LORRY_IMAGE", "LORRY_STORE", "MLFLOW_TRACKING_URI", "data.source"):
        assert place in refused
    assert not (workspace.folder / "lorry.yaml").exists()
    assert not (workspace.store / "specs").exists()


def test_the_command_runs_the_compiled_graph_when_asked(workspace: Any) -> None:
    workspace.write_task("films")
    (task,) = workspace.run_json("run", "films.yaml", "--runner", "subprocess")
    assert (task["outcome"], task["version"]) == ("promoted", 1)
    (run,) = workspace.list_runs()
    assert (run / "pipeline.yaml").exists()


def test_the_file_runs_by_itself(workspace: Any, rows: Callable[..., Any]) -> None:
    """Compiled without tasks and given one task at its start, with no progress files and no checkpoints."""
    workspace.write_task("films")
    compile_tasks(workspace)
    (workspace.folder / "run.py").write_text(RUN)
    arguments: dict[str, Any] = {
        "tasks": find_tasks(workspace, "films.yaml"),
        "tracking_uri": f"sqlite:///{workspace.home}/m.db",
    }
    finished = run_file(workspace, arguments)
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    (task,) = workspace.run_json("tasks")
    assert (task["task"], task["version"]) == ("films", 1)
    (report,) = workspace.store.glob("runs/*/report.json")
    assert json.loads(report.read_text("utf-8"))["tasks"][0]["status"] == "promoted"
    # The command finds what the bare file registered.
    (task,) = workspace.run_json("run", "films.yaml")
    assert task["outcome"] == "current"
    # A task that cannot be read fails the run and leaves the others alone.
    finished = run_file(workspace, arguments | {"tasks": [*arguments["tasks"], "{"]})
    assert finished.returncode != 0
    assert "1 of 2 tasks failed" in finished.stdout + finished.stderr
    (latest,) = set(workspace.store.glob("runs/*/report.json")) - {report}
    told = {task["task"]: task["status"] for task in json.loads(latest.read_text("utf-8"))["tasks"]}
    assert told == {"films": "current", "unreadable-021fb596": "failed"}
