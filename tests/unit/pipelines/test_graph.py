"""The compiled graph: rules that Kubeflow's backend keeps and its local runners do not show."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorry_pipelines.cluster.profile import (
    CLUSTER_STEPS,
    ClusterProfile,
    load_profile,
)
from lorry_pipelines.compilation import compile_pipeline
from lorry_pipelines.step_images import SLIM_STEPS
from lorry_registry.errors import InvalidTaskError, UsageError
from lorry_registry.settings import Settings
from lorry_registry.tasks.task_references import refer_to_task
from lorry_registry.tasks.task_spec import TaskSpec

PLACEHOLDER = "{{$.pipeline_job_uuid}}"
GOLDEN = Path(__file__).parent / "golden" / "one_gpu.yaml"
TMP, SHARED = "/tmp", "/dev/shm"  # noqa: S108 - paths in pods
PROFILE = Path(__file__).parents[3] / "infra" / "k8s" / "profile.yaml"
TWO_GPUS = {
    "count": 2,
    "memory": "64Gi",
    "node_selector": {"gpu": "h100"},
    "tolerations": [{"key": "reserved", "operator": "Exists"}],
}
SETTINGS = {
    "LORRY_STORE": "s3://bucket/lorry",
    "MLFLOW_TRACKING_URI": "http://mlflow.lorry.svc:5000",
    "LORRY_IMAGE": f"registry.example/lorry@sha256:{'a' * 64}",
    "LORRY_SLIM_IMAGE": f"registry.example/lorry-slim@sha256:{'b' * 64}",
}


def make_spec(name: str = "films", **resources: Any) -> TaskSpec:
    return TaskSpec.model_validate(
        {
            "name": name,
            "kind": "text-classification",
            "base": {"model": "owner/name", "revision": "c" * 40},
            "data": {"source": f"s3://data/{name}.jsonl"},
            "method": {"name": "lora"},
            "resources": resources,
        }
    )


_COMPILED: dict[str, str] = {}


def compile_text(folder: Path, *specs: TaskSpec, profile: ClusterProfile | None = None) -> str:
    """Compile once for all tests that look at the same: kfp takes seconds for each."""
    key = json.dumps([part.model_dump_json() for part in (*specs, profile) if part is not None])
    if key not in _COMPILED:
        target = folder / "lorry.yaml"
        compile_pipeline(specs, target, settings=Settings.load(SETTINGS, folder), profile=profile)
        _COMPILED[key] = target.read_text("utf-8")
    return _COMPILED[key]


def compile_specs(
    folder: Path, *specs: TaskSpec, profile: ClusterProfile | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pipeline's own document and the one for Kubernetes."""
    documents = list(yaml.load_all(compile_text(folder, *specs, profile=profile), yaml.CSafeLoader))
    return documents[0], documents[1] if len(documents) > 1 else {}


def list_steps(pipeline: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every step that runs in a pod, with what it is in its part of the graph."""
    for dag in [pipeline["root"], *pipeline["components"].values()]:
        for task in dag.get("dag", {}).get("tasks", {}).values():
            component = task["componentRef"]["name"]
            if "executorLabel" in pipeline["components"][component]:
                yield component, task


def find_default(pipeline: dict[str, Any], name: str) -> Any:
    return pipeline["root"]["inputDefinitions"]["parameters"][name].get("defaultValue")


def test_the_placeholder_is_a_constant_of_each_step_and_the_default_of_nothing(tmp_path: Path) -> None:
    pipeline, _ = compile_specs(tmp_path, make_spec())
    steps = dict(list_steps(pipeline))
    assert {name.removeprefix("comp-").replace("-", "_") for name in steps} == set(CLUSTER_STEPS)
    for name, step in steps.items():
        assert step["inputs"]["parameters"]["kfp_run"] == {"runtimeValue": {"constant": PLACEHOLDER}}, name
    for parameter in pipeline["root"]["inputDefinitions"]["parameters"].values():
        assert PLACEHOLDER not in json.dumps(parameter)
    assert find_default(pipeline, "run") == ""


def test_the_verdict_waits_for_all_tasks_inside_the_exit_handler(tmp_path: Path) -> None:
    pipeline, _ = compile_specs(tmp_path, make_spec(), make_spec("large", **TWO_GPUS))
    handled = pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    verdict = handled.pop("verdict")
    assert verdict["dependentTasks"] == list(handled)
    assert len(handled) == 1
    assert verdict.get("triggerPolicy") is None
    report = pipeline["root"]["dag"]["tasks"]["report"]
    assert report["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}


def test_no_step_is_cached(tmp_path: Path) -> None:
    pipeline, _ = compile_specs(tmp_path, make_spec())
    assert all(not step["cachingOptions"].get("enableCache") for _, step in list_steps(pipeline))


def test_each_input_is_described_where_kubeflow_shows_it(tmp_path: Path) -> None:
    pipeline, _ = compile_specs(tmp_path, make_spec())
    steps = {name: pipeline["components"][name] for name, _ in list_steps(pipeline)}
    shown = {"the dialog that starts a run": pipeline["root"], **steps}
    inputs = [
        (place, name, given.get("description"))
        for place, component in shown.items()
        for kind in component["inputDefinitions"].values()
        for name, given in kind.items()
    ]
    assert [(place, name) for place, name, description in inputs if not description] == []


def test_five_hundred_tasks_travel_as_references(tmp_path: Path) -> None:
    specs = [make_spec(f"task-{number:03}") for number in range(500)]
    pipeline, _ = compile_specs(tmp_path, *specs, profile=ClusterProfile(tasks_per_run=500))
    tasks = find_default(pipeline, "tasks")
    assert tasks == [str(refer_to_task(spec)) for spec in specs]
    # The limit of Linux for one argument.
    assert len(json.dumps(tasks)) < 64 * 1024


def test_more_tasks_than_an_argument_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2000 tasks are too many for one run") as raised:
        compile_specs(tmp_path, *(make_spec(f"task-{number:04}") for number in range(2000)))
    assert "start several runs of up to" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_more_tasks_than_argo_holds_are_refused_for_a_cluster(tmp_path: Path) -> None:
    specs = [make_spec(f"task-{number:03}") for number in range(6)]
    with pytest.raises(
        UsageError, match="6 tasks are too many for one run: the profile's tasks_per_run is 5"
    ):
        compile_specs(tmp_path, *specs, profile=ClusterProfile(tasks_per_run=5))
    compile_specs(tmp_path, *specs)


def test_each_loop_works_on_so_many_tasks_at_once(tmp_path: Path) -> None:
    specs = (make_spec(), make_spec("large", **TWO_GPUS))
    pipeline, _ = compile_specs(tmp_path, *specs, profile=ClusterProfile(tasks_at_once=7))
    loops = [
        task["iteratorPolicy"]
        for component in pipeline["components"].values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "parameterIterator" in task
    ]
    assert loops == [{"parallelismLimit": 7}] * 2


def test_tasks_with_different_resources_cannot_be_replaced(tmp_path: Path) -> None:
    pipeline, _ = compile_specs(tmp_path, make_spec(), make_spec("large", **TWO_GPUS))
    assert "tasks" not in pipeline["root"]["inputDefinitions"]["parameters"]
    loops = [
        json.loads(task["parameterIterator"]["items"].get("raw", "null"))
        for component in pipeline["components"].values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "parameterIterator" in task
    ]
    assert len(loops) == 2


def test_for_this_machine_nothing_is_placed(tmp_path: Path) -> None:
    pipeline, platform = compile_specs(tmp_path, make_spec("large", **TWO_GPUS))
    assert platform == {}
    assert "resources" not in json.dumps(pipeline["deploymentSpec"])


def test_every_step_is_placed_the_report_too(tmp_path: Path) -> None:
    pipeline, platform = compile_specs(tmp_path, make_spec(**TWO_GPUS), profile=load_profile(PROFILE))
    placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors = pipeline["deploymentSpec"]["executors"]
    assert set(placed) == set(executors)
    for name, executor in executors.items():
        settings, container = placed[name], executor["container"]
        assert settings["securityContext"] == {
            "runAsUser": "10001",
            "runAsGroup": "10001",
            "runAsNonRoot": True,
        }
        assert {mount["mountPath"] for mount in settings["emptyDirMounts"]} >= {TMP, "/home/lorry"}
        assert int(settings["activeDeadlineSeconds"]) >= 3600
        assert [secret["secretName"] for secret in settings["secretAsEnv"]] == [
            "lorry-s3",
            "lorry-mlflow",
            "lorry-hub",
        ]
        resources = container["resources"]
        assert resources["resourceCpuRequest"]
        assert resources["resourceMemoryRequest"]
        assert resources["resourceMemoryLimit"]
        assert "pip install" not in json.dumps(container)


def test_steps_that_judge_are_retried_at_once_and_a_verdict_never(tmp_path: Path) -> None:
    pipeline, _ = compile_specs(tmp_path, make_spec(**TWO_GPUS), profile=load_profile(PROFILE))
    policies = {name.removeprefix("comp-"): step.get("retryPolicy") for name, step in list_steps(pipeline)}
    assert policies.pop("verdict") is None
    assert {policy["backoffMaxDuration"] for policy in policies.values()} == {"604800s"}
    waits = {name: policy["backoffDuration"] for name, policy in policies.items()}
    assert {name for name, wait in waits.items() if wait == "1s"} == {"gate", "report"}
    assert set(waits.values()) == {"1s", "60s"}


def test_every_step_runs_in_its_image_and_is_told_which(tmp_path: Path) -> None:
    pipeline, _ = compile_specs(tmp_path, make_spec(**TWO_GPUS), profile=ClusterProfile())
    for name, executor in pipeline["deploymentSpec"]["executors"].items():
        container = executor["container"]
        is_slim = name.removeprefix("exec-").replace("-", "_") in SLIM_STEPS
        assert container["image"] == SETTINGS["LORRY_SLIM_IMAGE" if is_slim else "LORRY_IMAGE"], name
        assert {"name": "LORRY_IMAGE", "value": container["image"]} in container["env"]


def test_shared_memory_is_part_of_the_memory_limit(tmp_path: Path) -> None:
    pipeline, platform = compile_specs(tmp_path, make_spec(**TWO_GPUS), profile=ClusterProfile())
    executors = pipeline["deploymentSpec"]["executors"]
    placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for step, count in (("exec-finetune", "2"), ("exec-evaluate", "1")):
        resources = executors[step]["container"]["resources"]
        assert resources["accelerator"]["resourceCount"] == count
        assert resources["resourceMemoryLimit"] == f"{(64 + 8) * 1024}Mi"
        (shared,) = [mount for mount in placed[step]["emptyDirMounts"] if mount["mountPath"] == SHARED]
        assert (shared["medium"], shared["sizeLimit"]) == ("Memory", "8Gi")
        assert placed[step]["nodeSelector"] == {"labels": {"gpu": "h100"}}
    for step in set(executors) - {"exec-finetune", "exec-evaluate"}:
        assert "accelerator" not in executors[step]["container"]["resources"]
        assert "nodeSelector" not in placed[step]
        assert "tolerations" not in placed[step]


def test_each_group_is_placed_by_its_own_resources_in_every_compilation(tmp_path: Path) -> None:
    """Compiled in processes whose sets and maps have other orders: kfp once let one group place another."""
    compiled = set()
    for seed in range(3):
        path = tmp_path / f"{seed}.yaml"
        code = f"import {__name__.rpartition('.')[2]} as t; t.compile_two_groups({str(path)!r})"
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": _list_paths()}
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=environment)
        compiled.add(path.read_text("utf-8"))
    (text,) = compiled
    pipeline, platform = yaml.safe_load_all(text)
    placed = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    steps = {
        name: executor["container"]["resources"]
        for name, executor in pipeline["deploymentSpec"]["executors"].items()
        if name.startswith(("exec-finetune", "exec-evaluate"))
    }
    assert len(steps) == 4
    for name, resources in steps.items():
        mounts = {mount["mountPath"] for mount in placed[name]["emptyDirMounts"]}
        assert (SHARED in mounts) == ("accelerator" in resources), name
        assert ("nodeSelector" in placed[name]) == ("accelerator" in resources), name


def compile_two_groups(path: str) -> None:
    compile_pipeline(
        [make_spec("large", **TWO_GPUS), make_spec("books")],
        Path(path),
        settings=Settings.load(SETTINGS, Path(path).parent),
        profile=ClusterProfile(),
    )


def _list_paths() -> str:
    return os.pathsep.join([str(Path(__file__).parent), *sys.path])


def test_a_queue_an_image_secret_and_labels_reach_every_pod(tmp_path: Path) -> None:
    profile = ClusterProfile.model_validate(
        {
            "queue": {"name": "gpus", "priority_class": "low"},
            "image_pull_secrets": ["registry"],
            "labels": {"team": "nlp"},
            "node_selector": {"pool": "batch"},
            "tolerations": [{"key": "batch", "operator": "Exists"}],
            "volumes": [{"claim": "bases", "path": "/bases"}],
        }
    )
    _, platform = compile_specs(tmp_path, make_spec(), profile=profile)
    for name, placed in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items():
        assert placed["podMetadata"]["labels"] == {
            "app.kubernetes.io/part-of": "lorry",
            "lorry/step": name.removeprefix("exec-"),
            "kueue.x-k8s.io/queue-name": "gpus",
            "kueue.x-k8s.io/priority-class": "low",
            "team": "nlp",
        }
        assert [secret["secretName"] for secret in placed["imagePullSecret"]] == ["registry"]
        assert placed["nodeSelector"] == {"labels": {"pool": "batch"}}
        assert placed["tolerations"] == [{"key": "batch", "operator": "Exists"}]
        assert [mount["mountPath"] for mount in placed["pvcMount"]] == ["/bases"]


def read_train_job(pipeline: dict[str, Any]) -> dict[str, Any]:
    """Return what the step that trains on several nodes is told of them."""
    for executor in pipeline["deploymentSpec"]["executors"].values():
        for variable in executor["container"].get("env", ()):
            if variable["name"] == "LORRY_TRAIN_JOB":
                document: dict[str, Any] = json.loads(variable["value"])
                return document
    raise AssertionError("no step is told of nodes")


def test_several_nodes_get_what_one_would_and_the_step_that_waits_gets_little(tmp_path: Path) -> None:
    profile = ClusterProfile.model_validate(
        {
            "trainer": {"runtime": "our-torch", "service_account": "trainer", "start_seconds": 600},
            "queue": {"name": "research", "priority_class": "low"},
            "image_pull_secrets": ["registry"],
            "bases": {"claim": "bases"},
            "secrets": [{"name": "s3", "variables": {"key": "AWS_SECRET_ACCESS_KEY"}}],
            "accelerators": {"shared_memory": "16Gi", "node_selector": {"pool": "gpu"}},
            "labels": {"team": "search"},
        }
    )
    pipeline, kubernetes = compile_specs(tmp_path, make_spec(**TWO_GPUS, nodes=4), profile=profile)
    job = read_train_job(pipeline)
    assert (job["nodes"], job["runtime"], job["service_account"]) == (4, "our-torch", "trainer")
    assert job["resources"] == {"cpu": "2", "memory": f"{80 * 1024}Mi", "nvidia.com/gpu": "2"}
    assert job["shared_memory"] == "16Gi"
    assert job["image"] == SETTINGS["LORRY_IMAGE"]
    assert job["node_selector"] == {"pool": "gpu", "gpu": "h100"}
    assert job["secrets"] == [{"variable": "AWS_SECRET_ACCESS_KEY", "name": "s3", "key": "key"}]
    assert job["volumes"] == [{"claim": "bases", "path": "/bases", "read_only": True}]
    assert job["environment"]["LORRY_BASES"] == "/bases"
    # Kueue admits the job as a whole, and not its pods once more.
    assert "kueue.x-k8s.io/queue-name" not in job["labels"]
    assert job["job_labels"] == {
        "kueue.x-k8s.io/queue-name": "research",
        "kueue.x-k8s.io/priority-class": "low",
    }
    assert job["image_pull_secrets"] == ["registry"]
    assert job["tolerations"][0] == {"key": "reserved", "operator": "Exists"}
    assert (job["user"], job["group"], job["home"]) == (10001, 10001, "/home/lorry")
    assert (job["labels"]["team"], job["start_seconds"]) == ("search", 600)
    waiting = pipeline["deploymentSpec"]["executors"]["exec-finetune"]["container"]
    assert "accelerator" not in waiting["resources"]
    assert waiting["resources"]["resourceMemoryLimit"] == "2Gi"
    placed = kubernetes["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-finetune"]
    assert SHARED not in [volume.get("mountPath") for volume in placed["emptyDirMounts"]]
    assert "nodeSelector" not in placed
    # The job ends first, so that the step can say why.
    assert int(placed["activeDeadlineSeconds"]) == job["deadline_seconds"] + 1800


def test_several_nodes_take_a_trainer(tmp_path: Path) -> None:
    with pytest.raises(InvalidTaskError, match=r"films: resources\.nodes: .*Kubeflow Trainer"):
        compile_specs(tmp_path, make_spec(nodes=2), profile=ClusterProfile())


def test_a_task_on_several_nodes_is_another() -> None:
    assert refer_to_task(make_spec(nodes=1)) == refer_to_task(make_spec())
    assert refer_to_task(make_spec(nodes=2)) != refer_to_task(make_spec())


def test_a_run_ends_and_is_removed_in_time(tmp_path: Path) -> None:
    profile = ClusterProfile(ttl_seconds=100, deadline_seconds=200)
    _, platform = compile_specs(tmp_path, make_spec(), profile=profile)
    config = platform["platforms"]["kubernetes"]["pipelineConfig"]
    assert "100" in json.dumps(config)
    assert "200" in json.dumps(config)


def test_the_compiled_file_is_the_golden_one(tmp_path: Path) -> None:
    """A task on a GPU with a cluster's profile; the tests above look at what other tasks have besides."""
    compiled = compile_text(tmp_path, make_spec(count=1, memory="16Gi"), profile=load_profile(PROFILE))
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(compiled, "utf-8")
    assert compiled == GOLDEN.read_text("utf-8"), "run with UPDATE_GOLDEN=1 if the change is wanted"


@pytest.fixture(autouse=True)
def _ignore_warnings_of_the_compiler() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
