"""MLflow as a server on PostgreSQL, with artifacts through it and straight to S3, with logins and tokens.

The adapters are frozen ones, so that nothing has to be trained.
"""

import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorry_components.steps.register.mlflow_publication import publish_version, reconcile_task
from lorry_registry.errors import TrackingError
from lorry_registry.ledger.promotion import list_versions
from lorry_registry.mlflow.best_effort import BestEffort
from lorry_registry.mlflow.index import MlflowIndex, sync_aliases
from lorry_registry.records.row_fingerprints import read_fingerprints, store_fingerprints
from lorry_registry.registry import Registry
from lorry_registry.stores import LocalStore, open_store
from lorry_stack.stack import Stack

from fixtures.token_proxy import serve_with_token

pytestmark = pytest.mark.slow

FROZEN = Path(__file__).parents[1] / "frozen" / "1"
TEXTS = ["the film was great and i liked it", "an awful, boring meal"]
_CODE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
print("predictions:", model.predict(json.loads(sys.argv[2])).to_json(orient="records", double_precision=15))
"""
UseStack = Callable[[Stack], dict[str, str]]


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Return the frozen registry, and make its bases importable, here and in children."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # MLflow 3.17 warns of its own type hints and of what its server uses, when they are imported.
        warnings.simplefilter("ignore")
        importlib.import_module("mlflow.pyfunc")
        importlib.import_module("mlflow.server.auth.client")
    folder = tmp_path_factory.mktemp("frozen")
    shutil.copytree(FROZEN / "store", folder / "store")
    sys.path.append(str(FROZEN))
    importlib.invalidate_caches()
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [before, str(FROZEN)]))
    yield Registry(LocalStore(folder / "store"), folder / "cache")
    os.environ["PYTHONPATH"] = before
    sys.path.remove(str(FROZEN))


@pytest.fixture
def copy_tasks(frozen: Registry) -> Callable[..., Registry]:
    """Return a function that registers frozen tasks anew in another store, all their versions."""

    def copy(target: Registry, *tasks: str) -> Registry:
        for task in tasks:
            for version in list_versions(frozen.ledger.read_history(task)):
                manifest = frozen.read_manifest(version.adapter_id)
                target.publish(frozen.fetch(version.adapter_id), manifest)
                if fingerprints := read_fingerprints(frozen.store, manifest):
                    store_fingerprints(target.store, manifest, fingerprints.serialize())
                target.register(
                    task,
                    version.adapter_id,
                    promote=version.registered.is_promotion,
                    judged_champion=target.ledger.read_state(task).champion_version,
                    reasons=version.registered.reasons,
                )
        return target

    return copy


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(LocalStore(tmp_path / "store"), tmp_path / "cache")


def publish(index: MlflowIndex, registry: Registry, task: str) -> None:
    for version in list_versions(registry.ledger.read_history(task)):
        manifest = registry.read_manifest(version.adapter_id)
        publish_version(index, registry, task=task, version=version, manifest=manifest)
    sync_aliases(index, registry, task)


def run_lorry(*arguments: str, code: int = 0, **environment: str) -> str:
    program = Path(sys.executable).with_name("lorry")
    finished = subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=240,
        check=False,
    )
    assert finished.returncode == code, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr if code else finished.stdout


# Both ways of artifacts, on the store on S3


@pytest.mark.parametrize("kind", ["proxied", pytest.param("direct", marks=pytest.mark.exhaustive)])
def test_plain_mlflow_predicts_what_lorry_predicts(
    request: pytest.FixtureRequest,
    use_stack: UseStack,
    copy_tasks: Callable[..., Registry],
    tmp_path: Path,
    kind: str,
) -> None:
    stack: Stack = request.getfixturevalue(f"{kind}_stack")
    variables = use_stack(stack)
    registry = copy_tasks(Registry(open_store(variables["LORRY_STORE"]), tmp_path / "cache"), "reviews-lora")
    index = MlflowIndex(variables["MLFLOW_TRACKING_URI"])
    publish(index, registry, "reviews-lora")
    publish(index, registry, "reviews-lora")

    from mlflow.tracking import MlflowClient

    client = MlflowClient(variables["MLFLOW_TRACKING_URI"])
    (version,) = client.search_model_versions("name = 'reviews-lora'")
    location = client.get_logged_model(version.source.removeprefix("models:/")).artifact_location
    assert location.startswith("mlflow-artifacts:/" if kind == "proxied" else "s3://mlflow/")
    assert client.get_registered_model("reviews-lora").tags["lorry.registry"] == registry.registry_id

    by_mlflow = load_and_predict(kind)
    by_lorry = json.loads(run_lorry("predict", "reviews-lora", *TEXTS, "--json", LORRY_HOME=str(tmp_path)))
    assert [row["label"] for row in by_mlflow] == [row["label"] for row in by_lorry]
    for mine, theirs in zip(by_lorry, by_mlflow, strict=True):
        # pandas writes fifteen digits.
        assert theirs["scores"] == pytest.approx(mine["scores"], abs=1e-12)


def load_and_predict(kind: str) -> list[dict[str, Any]]:
    """Load the champion with plain MLflow, and return what it predicts."""
    if kind == "direct":
        import mlflow

        frame = mlflow.pyfunc.load_model("models:/reviews-lora@champion").predict(TEXTS)
        return frame.to_dict("records")
    # Whoever only loads from this MLflow needs no credentials of S3.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    loaded = subprocess.run(
        [sys.executable, "-c", _CODE, "models:/reviews-lora@champion", json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    (line,) = (line for line in loaded.stdout.splitlines() if line.startswith("predictions: "))
    return json.loads(line.removeprefix("predictions: "))


# Who asks


def check_secretless(text: str, stack: Stack, *others: str) -> None:
    secrets = [*others, *(value for name, value in stack.list_variables().items() if "PASSW" in name)]
    assert [secret for secret in secrets if secret in text] == []


def test_a_wrong_password_costs_nothing_but_the_view(
    direct_stack: Stack,
    use_stack: UseStack,
    copy_tasks: Callable[..., Registry],
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = use_stack(direct_stack)
    uri, password = variables["MLFLOW_TRACKING_URI"], variables["MLFLOW_TRACKING_PASSWORD"]
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not-the-password")
    copy_tasks(registry, "reviews-over-time")
    said_once: list[str] = []
    mlflow = BestEffort("MLflow does not show it", said_once.append, todo="run: lorry reconcile")
    mlflow.attempt(lambda: publish(MlflowIndex(uri), registry, "reviews-over-time"))
    (warning,) = said_once
    assert "MLflow does not accept who asks" in warning
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in warning
    check_secretless(warning, direct_stack, "not-the-password")

    settings = {"LORRY_STORE": registry.store.address, "LORRY_HOME": str(tmp_path / "home")}
    said = run_lorry("reconcile", code=TrackingError.exit_code, **settings)
    assert "MLflow does not accept who asks" in said
    check_secretless(said, direct_stack, "not-the-password")
    assert [version.number for version, error in registry.verify_task("reviews-over-time") if not error] == [
        1,
        2,
        3,
    ]
    # The user and the password may stand in the address, too, where they count more.
    address = uri.replace("//", f"//{variables['MLFLOW_TRACKING_USERNAME']}:{password}@")
    said = run_lorry("reconcile", MLFLOW_TRACKING_URI=address, **settings)
    assert "v3 was missing and is recorded now" in said
    assert reconcile_task(MlflowIndex(address), registry, "reviews-over-time") == []
    check_secretless(said, direct_stack)


def test_a_user_without_rights_costs_nothing_but_the_view(
    direct_stack: Stack,
    use_stack: UseStack,
    copy_tasks: Callable[..., Registry],
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow.server.auth.client import AuthServiceClient

    variables = use_stack(direct_stack)
    uri = variables["MLFLOW_TRACKING_URI"]
    copy_tasks(registry, "reviews-ia3")
    manifest = registry.resolve("reviews-ia3").manifest
    # An administrator ran the task first: experiment and registered model are theirs.
    MlflowIndex(uri).ensure_experiment("reviews-ia3", registry.registry_id)
    MlflowIndex(uri).claim_model("reviews-ia3", manifest, registry.registry_id)
    AuthServiceClient(uri).create_user("reader", "the-readers-password")
    with monkeypatch.context() as as_reader:
        as_reader.setenv("MLFLOW_TRACKING_USERNAME", "reader")
        as_reader.setenv("MLFLOW_TRACKING_PASSWORD", "the-readers-password")
        index = MlflowIndex(uri)
        index.check_reachable()
        with pytest.raises(TrackingError, match="this user of MLflow may not do that") as caught:
            publish(index, registry, "reviews-ia3")
        assert "give the user EDIT on the task's experiment" in str(caught.value)
        check_secretless(str(caught.value), direct_stack, "the-readers-password")
    assert registry.resolve("reviews-ia3").version == 1
    assert "v1 was missing and is recorded now" in reconcile_task(MlflowIndex(uri), registry, "reviews-ia3")


def test_wrong_credentials_of_s3_cost_nothing_but_the_view(
    direct_stack: Stack,
    use_stack: UseStack,
    copy_tasks: Callable[..., Registry],
    registry: Registry,
    tmp_path: Path,
) -> None:
    use_stack(direct_stack)
    copy_tasks(registry, "reviews-bitfit")
    said = run_lorry(
        "reconcile",
        code=TrackingError.exit_code,
        AWS_SECRET_ACCESS_KEY="not-the-secret",  # noqa: S106
        LORRY_STORE=registry.store.address,
        LORRY_HOME=str(tmp_path / "home"),
    )
    assert "artifacts are on S3, which says: " in said
    assert "check the AWS_* settings" in said
    check_secretless(said, direct_stack, "not-the-secret")


def test_a_token(
    proxied_stack: Stack,
    use_stack: UseStack,
    copy_tasks: Callable[..., Registry],
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = use_stack(proxied_stack)
    copy_tasks(registry, "pairs-lora")
    with serve_with_token(variables["MLFLOW_TRACKING_URI"], "the-right-token") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-wrong-token")
        with pytest.raises(TrackingError, match="MLflow does not accept who asks") as caught:
            publish(MlflowIndex(address), registry, "pairs-lora")
        assert "MLFLOW_TRACKING_TOKEN" in str(caught.value)
        check_secretless(str(caught.value), proxied_stack, "a-wrong-token")
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "the-right-token")
        assert reconcile_task(MlflowIndex(address), registry, "pairs-lora") == [
            "v1 was missing and is recorded now",
            "the alias champion was not set, and is now MLflow's version 1",
        ]


def test_the_page_of_a_login_is_not_mlflow(proxied_stack: Stack, use_stack: UseStack) -> None:
    uri = use_stack(proxied_stack)["MLFLOW_TRACKING_URI"]
    with serve_with_token(uri, "token", shows_login=True) as address:
        with pytest.raises(TrackingError, match="what answers there is not MLflow, or a login") as caught:
            MlflowIndex(address).check_reachable()
        assert "doctype" not in str(caught.value)


# Whose it is


def test_two_registries_do_not_mix(
    proxied_stack: Stack, use_stack: UseStack, copy_tasks: Callable[..., Registry], tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient

    uri = use_stack(proxied_stack)["MLFLOW_TRACKING_URI"]
    client, index = MlflowClient(uri), MlflowIndex(uri)
    first, second = (Registry(LocalStore(tmp_path / name), tmp_path / f"{name}-cache") for name in "ab")
    copy_tasks(first, "reviews-vera")
    copy_tasks(second, "reviews-vera", "reviews-full")
    publish(index, first, "reviews-vera")

    def describe() -> tuple[Any, ...]:
        experiment = client.get_experiment_by_name("reviews-vera")
        model = client.get_registered_model("reviews-vera")
        runs = client.search_runs([experiment.experiment_id])
        versions = client.search_model_versions("name = 'reviews-vera'")
        return (
            experiment.tags,
            model.tags,
            model.aliases,
            sorted(run.info.run_id for run in runs),
            [(version.version, version.tags) for version in versions],
        )

    before = describe()
    for attempt in (
        lambda: publish(index, second, "reviews-vera"),
        lambda: reconcile_task(index, second, "reviews-vera"),
        lambda: index.open_run("reviews-vera", name="r", tags={}, registry_id=second.registry_id),
    ):
        with pytest.raises(TrackingError, match=f"belongs to another registry .{first.registry_id}"):
            attempt()
    assert describe() == before
    publish(index, second, "reviews-full")
    assert client.get_experiment_by_name("reviews-full").tags["lorry.registry"] == second.registry_id
    assert reconcile_task(index, first, "reviews-vera") == reconcile_task(index, second, "reviews-full") == []


def test_somebody_elses_experiment(
    proxied_stack: Stack, use_stack: UseStack, copy_tasks: Callable[..., Registry], registry: Registry
) -> None:
    from mlflow.tracking import MlflowClient

    uri = use_stack(proxied_stack)["MLFLOW_TRACKING_URI"]
    client = MlflowClient(uri)
    experiment_id = client.create_experiment("reviews-adapter-h")
    copy_tasks(registry, "reviews-adapter-h")
    with pytest.raises(
        TrackingError, match="an experiment named 'reviews-adapter-h' exists that Lorry did not"
    ):
        publish(MlflowIndex(uri), registry, "reviews-adapter-h")
    assert client.search_runs([experiment_id]) == []
    client.rename_experiment(experiment_id, "somebodys")
    assert "v1 was missing and is recorded now" in reconcile_task(
        MlflowIndex(uri), registry, "reviews-adapter-h"
    )


# At once


@pytest.mark.exhaustive
def test_four_processes_reconcile_at_once(
    proxied_stack: Stack, use_stack: UseStack, copy_tasks: Callable[..., Registry], registry: Registry
) -> None:
    from mlflow.tracking import MlflowClient

    uri = use_stack(proxied_stack)["MLFLOW_TRACKING_URI"]
    tasks = ("reviews-over-time", "reviews-prelayer", "towns-bert-lora")
    copy_tasks(registry, *tasks)
    program = Path(sys.executable).with_name("lorry")
    environment = os.environ | {
        "LORRY_STORE": registry.store.address,
        "LORRY_HOME": str(Path(registry.store.address).parent / "home"),
    }
    processes = [
        subprocess.Popen(
            [program, "reconcile", "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        said = process.communicate(timeout=400)
        assert process.returncode == 0, said
    client, index = MlflowClient(uri), MlflowIndex(uri)
    for task in tasks:
        assert reconcile_task(index, registry, task) == []
        shown = [version.tags["lorry.adapter_id"] for version in index.list_model_versions(task)]
        known = [version.adapter_id for version in list_versions(registry.ledger.read_history(task))]
        assert sorted(shown) == sorted(known)
        champion = client.get_model_version_by_alias(task, "champion")
        assert champion.tags["lorry.adapter_id"] == registry.resolve(task).adapter_id
