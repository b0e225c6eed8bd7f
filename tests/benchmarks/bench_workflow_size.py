"""How large Argo's workflow object becomes, by tasks: python tests/benchmarks/bench_workflow_size.py.

Argo keeps the status of every node of a run in one Kubernetes object. Beyond 1 MiB it gzips the statuses,
and a run whose object is larger than 1 MiB even so ends in an error, since Kubeflow's manifests have no
offloading. The statuses are built here as the Argo compiler and the driver of Kubeflow Pipelines 2.17
make them: for each step a driver, a DAG around the executor, its retry node and its pod, each repeating
its inputs (the component, the task, the container, the patch of the pod). The profile is the one in
infra/k8s, with long names.
"""

import argparse
import base64
import gzip
import json
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lorry_components.process_setup import quiet_libraries
from lorry_pipelines.cluster.profile import load_profile
from lorry_pipelines.compilation import compile_pipeline
from lorry_registry.files.digests import digest_bytes
from lorry_registry.settings import Settings
from lorry_registry.tasks.task_spec import TaskSpec

LIMIT = 1 << 20
PROFILE = Path(__file__).parents[2] / "infra" / "k8s" / "profile.yaml"
LONG = "sentiment-of-customer-messages-in-the-support-queue-market"
SETTINGS = {
    "LORRY_STORE": "s3://company-machine-learning-production/lorry/registry",
    "MLFLOW_TRACKING_URI": "http://mlflow-tracking.machine-learning-production.svc.cluster.local:5000",
    "LORRY_IMAGE": f"registry.company.example/machine-learning/lorry-python@sha256:{'a' * 64}",
    "LORRY_SLIM_IMAGE": f"registry.company.example/machine-learning/lorry-slim@sha256:{'b' * 64}",
}


def make_spec(number: int, groups: int) -> TaskSpec:
    group = number % groups
    return TaskSpec.model_validate(
        {
            "name": f"{LONG}-{number:03}",
            "kind": "text-classification",
            "base": {"model": "company/a-long-name-of-a-base-model", "revision": "c" * 40},
            "data": {"source": f"s3://company-data/{LONG}/{number:03}.jsonl"},
            "method": {"name": "lora"},
            "resources": {"count": 1, "memory": f"{24 + group}Gi", "node_selector": {"gpu": f"kind-{group}"}},
        }
    )


def compile_tasks(tasks: int, groups: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pipeline's specification and each executor's settings for Kubernetes."""
    specs = [make_spec(number, groups) for number in range(tasks)]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "lorry.yaml"
        settings = Settings.load(SETTINGS, Path(folder))
        profile = load_profile(PROFILE).model_copy(update={"tasks_per_run": tasks})
        compile_pipeline(specs, target, settings=settings, profile=profile)
        pipeline, platform = yaml.safe_load_all(target.read_text("utf-8"))
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@dataclass
class Workflow:
    """The statuses of the nodes of one run."""

    pipeline: dict[str, Any]
    placed: dict[str, Any]
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    executions: int = 0

    def add(
        self,
        name: str,
        kind: str,
        template: str,
        inputs: dict[str, str],
        outputs: dict[str, str] | None = None,
    ) -> None:
        """Add a node with what Argo keeps of one that has ended."""
        hashed = int(digest_bytes(name.encode()).removeprefix("sha256:")[:8], 16)
        listed = {"parameters": [{"name": key, "value": value} for key, value in inputs.items()]}
        status = {
            "id": f"lorry-x7k2p-{hashed}",
            "name": name,
            "displayName": name.rpartition(".")[2],
            "type": kind,
            "templateName": template,
            "templateScope": "local/lorry-x7k2p",
            "phase": "Succeeded",
            "boundaryID": f"lorry-x7k2p-{hashed // 3}",
            "startedAt": "2026-12-01T10:00:00Z",
            "finishedAt": "2026-12-01T10:01:00Z",
            "progress": "1/1",
            "resourcesDuration": {"cpu": 60, "memory": 600},
            "inputs": listed,
            "children": [f"lorry-x7k2p-{hashed // 5}", f"lorry-x7k2p-{hashed // 7}"],
            "outboundNodes": [f"lorry-x7k2p-{hashed // 11}"],
        }
        if outputs is not None:
            values = [{"name": key, "value": value} for key, value in outputs.items()]
            status["outputs"] = {"exitCode": "0", "parameters": values}
        if kind == "Pod":
            status["hostNodeName"] = "gke-production-gpu-pool-1a2b3c4d-x9z8"
        self.nodes[status["id"]] = status

    def run_dag(self, component: dict[str, Any], path: str, items: dict[str, Any]) -> None:
        """Add the nodes of all tasks of a graph."""
        for name, task in component["dag"]["tasks"].items():
            self.run_task(name, task, f"{path}.{name}", items)

    def run_task(self, name: str, task: dict[str, Any], path: str, items: dict[str, Any]) -> None:
        component = self.pipeline["components"][task["componentRef"]["name"]]
        if "parameterIterator" in task:
            self.run_loop(component, task, path, items)
        elif "dag" in component:
            self.add_driver(component, task, f"{path}-driver")
            self.add(
                path, "DAG", f"comp-{name}", {"parent-dag-id": str(self.executions), "condition": "true"}
            )
            self.run_dag(component, path, items)
        else:
            self.run_executor(component, task, path, items)

    def run_loop(
        self, component: dict[str, Any], task: dict[str, Any], path: str, items: dict[str, Any]
    ) -> None:
        source = task["parameterIterator"]["items"]
        listed = json.loads(source["raw"]) if "raw" in source else self.find_default(source["inputParameter"])
        self.add(path, "DAG", "comp-for-loop-1-for-loop-1-iterator", {"parent-dag-id": str(self.executions)})
        self.add_driver(component, task, f"{path}.iteration-driver")
        self.add(f"{path}.iteration-iterations", "TaskGroup", "comp-for-loop-1-iteration", {})
        for number, item in enumerate(listed):
            place = f"{path}.iteration-iterations({number}:{number})"
            ids = {"parent-dag-id": str(self.executions), "iteration-index": str(number)}
            self.add(place, "DAG", "comp-for-loop-1-iteration", ids)
            self.add_driver(component, task, f"{place}.iteration-item-driver", number)
            self.add(f"{place}.iteration-item", "DAG", "comp-for-loop-1", {**ids, "condition": "true"})
            self.run_dag(component, f"{place}.iteration-item", {"task": item, "number": number})

    def find_default(self, name: str) -> Any:
        parameters = self.pipeline["root"]["inputDefinitions"]["parameters"]
        return parameters[next(key for key in parameters if key in ("tasks", name))]["defaultValue"]

    def add_driver(
        self, component: dict[str, Any], task: dict[str, Any], path: str, number: int = -1
    ) -> None:
        self.executions += 1
        inputs = {
            "component": dump(component),
            "runtime-config": "",
            "task": dump(task),
            "task-name": path.rpartition(".")[2],
            "parent-dag-id": str(self.executions),
            "iteration-index": str(number),
            "driver-type": "DAG",
        }
        outputs = {"execution-id": str(self.executions + 1000), "iteration-count": "0", "condition": "true"}
        self.add(path, "Pod", "system-dag-driver", inputs, outputs)

    def run_executor(
        self, component: dict[str, Any], task: dict[str, Any], path: str, items: dict[str, Any]
    ) -> None:
        self.executions += 1
        label = component["executorLabel"]
        container = self.pipeline["deploymentSpec"]["executors"][label]["container"]
        patch = self.build_patch(component, task, container, label, items)
        inputs = {
            "component": dump(component),
            "task": dump(task),
            "container": dump(container),
            "task-name": path.rpartition(".")[2],
            "parent-dag-id": str(self.executions),
            "iteration-index": "-1",
            "kubernetes-config": dump(self.placed[label]),
        }
        outputs = {"pod-spec-patch": patch, "cached-decision": "false", "condition": "true"}
        self.add(f"{path}-driver", "Pod", "system-container-driver", inputs, outputs)
        retry = {
            f"retry-{key}": value
            for key, value in (("max-count", "3"), ("backoff-duration", "60"), ("backoff-factor", "2"))
        }
        labels = self.placed[label].get("podMetadata", {}).get("labels", {})
        metadata = {
            f"pod-metadata-label-{part}-{index}": text
            for index, pair in enumerate(labels.items())
            for part, text in zip(("key", "val"), pair, strict=True)
        }
        given = {"pod-spec-patch": patch, **metadata, **retry}
        template = "metadata-0-2-retry-system-container"
        self.add(path, "DAG", f"{template}-executor", {**given, "cached-decision": "false"})
        self.add(f"{path}.executor", "Retry", f"{template}-impl", given)
        self.add(f"{path}.executor(0)", "Pod", f"{template}-impl", given, {})

    def build_patch(
        self,
        component: dict[str, Any],
        task: dict[str, Any],
        container: dict[str, Any],
        label: str,
        items: dict[str, Any],
    ) -> str:
        """Return the patch of a pod: its container with the launcher's arguments, volumes and placement."""
        run = "8f14e45f-ceea-467f-a0e6-2b1d8d1c9a77"
        root = f"s3://company-machine-learning-production/kubeflow/lorry/{run}"
        known = {
            "store": SETTINGS["LORRY_STORE"],
            "tracking_uri": SETTINGS["MLFLOW_TRACKING_URI"],
            "run": "",
            "kfp_run": run,
            "checkpoints": "store",
            "force": False,
            "task": items.get("task"),
            "tasks": self.list_tasks(task),
        }
        parameters = {name: known[name] for name in task["inputs"]["parameters"] if name in known}
        places = {
            name: {
                "artifacts": [{"name": name, "uri": f"{root}/{label}/{uuid.uuid4()}/{name}", "metadata": {}}]
            }
            for name in (
                *component.get("inputDefinitions", {}).get("artifacts", {}),
                *component.get("outputDefinitions", {}).get("artifacts", {}),
            )
        }
        executor_input = {
            "inputs": {"parameterValues": parameters, "artifacts": places},
            "outputs": {"artifacts": places, "outputFile": "/tmp/kfp_outputs/output_metadata.json"},  # noqa: S108
        }
        arguments = [
            "--pipeline_name", "lorry", "--run_id", run, "--execution_id", str(self.executions),
            "--executor_input", dump(executor_input), "--component_spec", dump(component),
            "--pod_name", "$(KFP_POD_NAME)", "--pod_uid", "$(KFP_POD_UID)",
            "--mlmd_server_address", "metadata-grpc-service.kubeflow.svc.cluster.local",
            "--mlmd_server_port", "8080",
            "--publish_logs", "true", "--", *container["command"], *container["args"],
        ]  # fmt: skip
        main = {
            "name": "main",
            "image": container["image"],
            "command": ["/kfp-launcher/launch"],
            "args": arguments,
            "env": container.get("env", []),
            "resources": container.get("resources", {}),
        }
        return dump({"containers": [main], **self.placed[label]})

    def list_tasks(self, task: dict[str, Any]) -> Any:
        source = task["inputs"]["parameters"].get("tasks", {})
        if "runtimeValue" in source:
            return source["runtimeValue"]["constant"]
        return self.find_default("tasks") if source else None


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def measure_workflow(tasks: int, groups: int) -> tuple[int, int, int]:
    """Return the nodes of a run, and the bytes of its object as Argo writes it: plain, and compressed."""
    pipeline, placed = compile_tasks(tasks, groups)
    workflow = Workflow(pipeline, placed)
    workflow.run_dag(pipeline["root"], "lorry-x7k2p.root", {})
    specification = len(dump(pipeline)) + len(dump(placed))
    # Go writes the keys of a map in order, and the ids of nodes are hashes.
    nodes = json.dumps(workflow.nodes, separators=(",", ":"), sort_keys=True).encode()
    compressed = base64.b64encode(gzip.compress(nodes, 6))
    return len(workflow.nodes), specification + len(nodes), specification + len(compressed)


def list_cases(counts: list[int]) -> Iterator[tuple[int, int]]:
    for tasks in counts:
        for groups in (1, 5):
            yield tasks, groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=[20, 25, 50, 80, 200, 500])
    quiet_libraries()
    print("tasks  groups  nodes   plain KiB   compressed KiB   of the limit")
    for tasks, groups in list_cases(parser.parse_args().tasks):
        nodes, plain, compressed = measure_workflow(tasks, groups)
        print(
            f"{tasks:5}  {groups:6}  {nodes:5}  {plain / 1024:10.0f}  {compressed / 1024:15.0f}"
            f"  {compressed / LIMIT:12.3f}"
        )


if __name__ == "__main__":
    main()
