"""``lorry export kserve``: what KServe is given, and what is refused before it is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from lorry_pipelines.cli import export_kserve, lorry
from lorry_registry.errors import AdapterRejectedError, UsageError
from lorry_registry.registry import Registry
from lorry_registry.settings import Settings
from lorry_registry.stores import LocalStore

REPOSITORY = Path(__file__).parents[4]
FROZEN = max((REPOSITORY / "tests" / "frozen").glob("*/store")).parent
IMAGE = f"registry.example/lorry-serve@sha256:{'a' * 64}"
WRITING = "restaurants-gpt2-lora"


class _OnS3(LocalStore):
    """A store in a folder that says it is on S3."""

    def locate(self, key: str) -> str:
        return f"s3://adapters/team/{key}"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(_OnS3(FROZEN / "store"), tmp_path / "cache")


@pytest.fixture
def export(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    places = {"LORRY_STORE": "s3://adapters/team", "LORRY_BASES": "s3://models/lorry/"}
    settings = Settings.load(places, FROZEN)
    monkeypatch.setattr(export_kserve, "open_registry", lambda: registry)
    monkeypatch.setattr(export_kserve, "load_settings", lambda: settings)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    return lambda *arguments: CliRunner().invoke(lorry, ["export", "kserve", *arguments])


def use_base(registry: Registry, monkeypatch: pytest.MonkeyPatch, model: str, revision: str | None) -> str:
    """Let all adapters be of another base, and return its fingerprint's digits."""
    resolve = registry.resolve

    def rebase(task: str, version: int | None = None) -> Any:
        found = resolve(task, version)
        base = found.manifest.base.model_copy(update={"model": model, "revision": revision})
        return replace(found, manifest=found.manifest.model_copy(update={"base": base}))

    monkeypatch.setattr(registry, "resolve", rebase)
    fingerprint: str = resolve(WRITING).manifest.base.fingerprint
    return fingerprint.removeprefix("sha256:")


def test_an_inference_service_runs_the_component_of_infra(export: Callable[..., Result]) -> None:
    printed = export("reviews-lora", "questions-lora", "--image", IMAGE)
    (service,) = yaml.safe_load_all(printed.stdout)
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    predictor = service["spec"]["predictor"]
    (container,) = predictor["containers"]
    assert container["image"] == IMAGE
    objects = yaml.safe_load_all((REPOSITORY / "infra/k8s/components/serve/deployment.yaml").read_text())
    (deployment,) = [item for item in objects if item["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (own,) = pod["containers"]
    for field in ("automountServiceAccountToken", "securityContext", "volumes"):
        assert predictor[field] == pod[field]
    for field in ("command", "securityContext", "resources", "volumeMounts"):
        assert container[field] == own[field]
    assert container["args"] == [*own["args"], "--", "reviews-lora", "questions-lora"]
    for field in ("startupProbe", "livenessProbe", "readinessProbe"):
        own[field]["httpGet"]["port"] = container["ports"][0]["containerPort"]
        assert container[field] == own[field]
    given = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert given["LORRY_STORE"] == "s3://adapters/team"
    assert given["AWS_ENDPOINT_URL_S3"] == "https://s3.example"
    assert given.keys() <= {variable["name"] for variable in own["env"]}
    assert "a-secret" not in printed.stdout


@pytest.mark.parametrize(
    ("model", "revision", "address"),
    [
        ("team/writer", "0" * 40, f"hf://team/writer:{'0' * 40}"),
        ("bases:writer", None, "s3://models/lorry/writer/{digits}"),
    ],
)
def test_adapters_of_a_causal_model_are_named_by_their_addresses(
    export: Callable[..., Result],
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    revision: str | None,
    address: str,
) -> None:
    digits = use_base(registry, monkeypatch, model, revision)
    service, written = yaml.safe_load_all(
        export(WRITING, "reviews-lora", "--image", IMAGE, "--name", "team").stdout
    )
    assert (service["metadata"]["name"], written["metadata"]["name"]) == ("team-serve", "team-llm")
    assert (written["apiVersion"], written["kind"]) == ("serving.kserve.io/v1alpha2", "LLMInferenceService")
    digest = registry.resolve(WRITING).adapter_id.removeprefix("sha256:")
    assert written["spec"]["model"] == {
        "uri": address.format(digits=digits),
        "name": "team-llm-base",
        "lora": {
            "maxRank": 8,
            "adapters": [{"name": WRITING, "uri": f"s3://adapters/team/adapters/{digest}"}],
        },
    }


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["reviews-lora"], UsageError.exit_code, "not named by digest"),
        (["reviews-lora", "--image", "lorry-serve:latest"], UsageError.exit_code, "not named by digest"),
        ([WRITING], UsageError.exit_code, "on no S3 and no hub"),
        (["restaurants-gpt2-prelayer"], AdapterRejectedError.exit_code, "its method is prelayer"),
        (["restaurants-t5-lora", "--image", IMAGE], UsageError.exit_code, "kind text-to-text are not served"),
    ],
)
def test_what_a_cluster_could_not_serve_is_refused(
    export: Callable[..., Result], arguments: list[str], code: int, said: str
) -> None:
    refused = export(*arguments)
    assert refused.exit_code == code
    assert said in " ".join(refused.stderr.split())
    assert refused.stdout == ""


def test_a_store_on_this_machine_is_refused(export: Callable[..., Result], monkeypatch: Any) -> None:
    settings = Settings.load({"LORRY_STORE": str(FROZEN / "store")}, FROZEN)
    monkeypatch.setattr(export_kserve, "load_settings", lambda: settings)
    refused = export("reviews-lora", "--image", IMAGE)
    assert "a cluster cannot read it" in " ".join(refused.stderr.split())
