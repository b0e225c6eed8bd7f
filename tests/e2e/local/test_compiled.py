"""The compiled pipeline: a file that Kubeflow takes, and that runs without the ``lorry`` command."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import yaml

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
    workspace.run("compile", *arguments, "-o", "lorry.yaml", LORRY_IMAGE="registry.example/lorry@sha256:12")
    documents = list(yaml.safe_load_all((workspace.folder / "lorry.yaml").read_text("utf-8")))
    return documents[0], documents[1] if len(documents) > 1 else {}


def find_tasks(workspace: Any, *files: str) -> list[str]:
    """Return tasks as the pipeline takes them."""
    return [json.dumps(task) for task in workspace.run_json("validate", *files)]


def test_without_tasks_they_are_a_parameter(workspace: Any) -> None:
    pipeline, _ = compile_tasks(workspace)
    parameters = pipeline["root"]["inputDefinitions"]["parameters"]
    assert parameters["tasks"] == {"defaultValue": [], "isOptional": True, "parameterType": "LIST"}
    assert parameters["store"]["defaultValue"] == str(workspace.store)
    assert parameters["force"]["defaultValue"] is False
    executors = pipeline["deploymentSpec"]["executors"]
    images = {name: executor["container"]["image"] for name, executor in executors.items()}
    assert set(images.values()) == {"registry.example/lorry@sha256:12"}
    steps = ["evaluate", "finetune", "gate", "prepare-data", "register", "report"]
    assert sorted(images) == [f"exec-{step}" for step in steps]
    for executor in executors.values():
        assert "pip install" not in json.dumps(executor)
    assert not list(workspace.folder.glob(".lorry.*"))


def test_tasks_of_one_kind_of_node_are_the_default(workspace: Any) -> None:
    for name in ("films", "books"):
        workspace.write_task(name)
    pipeline, _ = compile_tasks(workspace, "films.yaml", "books.yaml", "--set", "train.seed=5")
    given = [
        json.loads(task)
        for task in pipeline["root"]["inputDefinitions"]["parameters"]["tasks"]["defaultValue"]
    ]
    assert [task["name"] for task in given] == ["films", "books"]
    assert {task["train"]["seed"] for task in given} == {5}
    assert [task["data"]["source"] for task in given] == [
        str(workspace.folder / f"{name}.jsonl") for name in ("films", "books")
    ]


def test_resources_of_several_groups(workspace: Any) -> None:
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    large = {
        "accelerator": "nvidia.com/gpu",
        "count": 2,
        "memory": "64Gi",
        "node_selector": {"gpu": "h100"},
        "tolerations": [toleration],
    }
    workspace.write_task("plain")
    workspace.write_task("large", resources=large)
    workspace.write_task("other", resources=large)
    workspace.write_task("amd", resources={"accelerator": "amd.com/gpu", "count": 1})
    files = ["plain.yaml", "large.yaml", "other.yaml", "amd.yaml"]
    pipeline, platform = compile_tasks(workspace, *files)
    executors = pipeline["deploymentSpec"]["executors"]
    training = {
        name: executor["container"].get("resources", {})
        for name, executor in executors.items()
        if name.startswith("exec-finetune")
    }
    accelerators = {
        name: (found["accelerator"]["resourceType"], found["accelerator"]["resourceCount"])
        for name, found in training.items()
        if "accelerator" in found
    }
    assert len(training) == 3
    assert sorted(accelerators.values()) == [("amd.com/gpu", "1"), ("nvidia.com/gpu", "2")]
    assert sorted(found["resourceMemoryLimit"] for found in training.values()) == ["4Gi", "4Gi", "64Gi"]
    placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    # A GPU's step has shared memory; only the large group's node is chosen.
    assert {name for name in placed if "emptyDirMounts" in placed[name]} == set(accelerators)
    (chosen,) = [name for name in placed if "nodeSelector" in placed[name]]
    assert accelerators[chosen] == ("nvidia.com/gpu", "2")
    assert placed[chosen]["nodeSelector"] == {"labels": {"gpu": "h100"}}
    assert placed[chosen]["tolerations"] == [toleration]
    # Both tasks of that group share one loop.
    loops = [
        json.loads(task["parameterIterator"]["items"]["raw"])
        for component in pipeline["components"].values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "parameterIterator" in task
    ]
    assert sorted([json.loads(item)["name"] for item in loop] for loop in loops) == [
        ["amd"],
        ["large", "other"],
        ["plain"],
    ]


def test_the_file_runs_by_itself(workspace: Any, rows: Callable[..., Any]) -> None:
    """Compiled without tasks and given one task at its start, with no progress files and no checkpoints."""
    workspace.write_task("films")
    compile_tasks(workspace)
    (workspace.folder / "run.py").write_text(RUN)
    arguments = {
        "tasks": find_tasks(workspace, "films.yaml"),
        "tracking_uri": f"sqlite:///{workspace.home}/m.db",
    }
    finished = subprocess.run(
        [sys.executable, "run.py", json.dumps(arguments)],
        cwd=workspace.folder,
        env=workspace.build_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    (task,) = workspace.run_json("tasks")
    assert (task["task"], task["version"]) == ("films", 1)
    (report,) = workspace.store.glob("runs/*/report.json")
    assert json.loads(report.read_text("utf-8"))["tasks"][0]["status"] == "promoted"
    # The command finds what the bare file registered.
    (task,) = workspace.run_json("run", "films.yaml")
    assert task["outcome"] == "current"
