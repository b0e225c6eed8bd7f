"""Every object is what the API server of each supported Kubernetes accepts, unknown fields refused."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.clusters import COMPONENTS, OVERLAYS, Objects, Render, find_object

kubernetes_validate = pytest.importorskip("kubernetes_validate")
jsonschema = pytest.importorskip("jsonschema")

# What is not Kubernetes' own: the specs, written down from the definitions in the projects' sources.
SPECS = json.loads(Path(__file__).with_name("custom_specs.json").read_text(encoding="utf-8"))
VERSIONS = ("1.29", "1.37")


def validate_object(item: dict[str, Any], version: str) -> None:
    if item["kind"] in SPECS:
        jsonschema.validate(item, SPECS[item["kind"]], jsonschema.Draft202012Validator)
    else:
        kubernetes_validate.validate(item, version, strict=True)


@pytest.fixture(scope="module")
def distinct(render: Render) -> Objects:
    """Every object that some choice renders, once."""
    choices = [(overlay, ()) for overlay in OVERLAYS] + [("gpu", (name,)) for name in COMPONENTS]
    rendered = [item for overlay, components in choices for item in render(overlay, components)]
    return list({json.dumps(item, sort_keys=True): item for item in rendered}.values())


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(distinct: Objects, version: str) -> None:
    for item in distinct:
        validate_object(item, version)


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Deployment", "mlflow", ("spec", "replica"), 2),
        ("Deployment", "mlflow", ("spec", "template", "spec", "containers"), {}),
        ("NetworkPolicy", "postgres", ("spec", "podselector"), {}),
        ("CronJob", "lorry-gc", ("spec", "schedule"), None),
        ("LocalQueue", "lorry", ("spec", "clusterQueue"), "Not_A_Name"),
        ("LocalQueue", "lorry", ("apiVersion",), "kueue.x-k8s.io/v1beta1"),
        ("WorkloadPriorityClass", "lorry-training", ("value",), "high"),
        ("ServiceMonitor", "mlflow", ("spec", "endpoints", 0, "basicauth"), {}),
    ],
)
def test_a_wrong_object_is_refused(
    everything: Objects, kind: str, name: str, path: tuple[str | int, ...], value: Any
) -> None:
    item: Any = copy.deepcopy(find_object(everything, kind, name))
    inner = item
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate_object(item, VERSIONS[-1])
