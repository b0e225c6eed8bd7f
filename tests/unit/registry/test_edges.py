"""Settings come from the environment at the edge, and are passed down from there."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("registry/lorry_registry", "components/lorry_components", "pipelines/lorry_pipelines")

# What reads the environment: where a process begins.
EDGES = {
    "registry/lorry_registry/cli/edge.py",
    # What a terminal can show is said there alone.
    "registry/lorry_registry/cli/lazy.py",
    "registry/lorry_registry/cli/prose.py",
    "components/lorry_components/steps/runtime/step_context.py",
    "components/lorry_components/steps/report/entry.py",
    # MLflow's client takes these settings from nowhere else, and reads them at each request.
    "registry/lorry_registry/mlflow/network.py",
    # boto3 reads its settings there itself; one client serves for as long as they are the same.
    "registry/lorry_registry/stores/s3_client.py",
    # MLflow calls it, and passes none of our settings on.
    "components/lorry_components/inference/mlflow_flavor.py",
    "components/lorry_components/steps/verdict/entry.py",
    # Where a node of several begins, and a look from inside a cluster.
    "components/lorry_components/steps/finetune/multi_node/node_entry.py",
    "components/lorry_components/steps/cluster_check/entry.py",
    "components/lorry_components/studies/trial_process.py",
    # A process sets its own threads by what is reserved for its pod.
    "components/lorry_components/processors.py",
    "pipelines/lorry_pipelines/local/runner_process.py",
    "pipelines/lorry_pipelines/local/step_processes.py",
}
# What sets variables for libraries that take no arguments for it, and reads none.
SETTERS = {
    "components/lorry_components/process_setup.py",
    "components/lorry_components/training/distributed/process_group.py",
}
# Where a process begins that loads large libraries.
BEGINNINGS = {
    *(
        f"pipelines/lorry_pipelines/cli/{name}.py"
        for name in (
            "compare",
            "drift",
            "export",
            "plan",
            "predict",
            "retrain",
            "run",
            "serve",
            "stale",
            "submit",
        )
    ),
    "pipelines/lorry_pipelines/cli/validate.py",
    "components/lorry_components/steps/report/entry.py",
    "components/lorry_components/steps/runtime/step_context.py",
    "components/lorry_components/studies/trial_process.py",
    "components/lorry_components/training/distributed/process_group.py",
    "pipelines/lorry_pipelines/local/preloaded.py",
}


@pytest.fixture(scope="module")
def modules() -> dict[str, ast.Module]:
    """Return the modules by their paths."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in paths}


def test_the_environment_is_read_at_the_edge_alone(modules: dict[str, ast.Module]) -> None:
    users = {path for path, tree in modules.items() if any(find_environment(tree))}
    assert users - EDGES - SETTERS == set(), "take what it says as an argument"
    assert users == EDGES | SETTERS, "a module that is listed does not use it"


def test_who_sets_the_environment_does_not_read_it(modules: dict[str, ast.Module]) -> None:
    for path in SETTERS:
        calls = [
            node.func.value
            for node in ast.walk(modules[path])
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("update", "setdefault")
        ]
        assert {id(node) for node in find_environment(modules[path])} <= {id(node) for node in calls}, path


def test_libraries_are_quieted_where_a_process_begins(modules: dict[str, ast.Module]) -> None:
    callers = {
        path
        for path, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "quiet_libraries"
    }
    assert callers == BEGINNINGS


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.environ['A']",
        "import os\nos.getenv('A')",
        "import os\ndef f(environment=os.environ): ...",
        "from os import environ",
        "from os import path, getenv as get",
    ],
)
def test_reading_is_noticed(code: str) -> None:
    assert len(list(find_environment(ast.parse(code)))) == 1


def find_environment(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield where a module mentions the environment."""
    names = {"environ", "environb", "getenv", "getenvb"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names and getattr(node.value, "id", "") == "os":
            yield node
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (alias for alias in node.names if alias.name in names)
