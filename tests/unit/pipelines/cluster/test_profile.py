"""The profile of a cluster: what it may say, and that every fault in it is named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lorry_pipelines.cluster.profile import CLUSTER_STEPS, BasesProfile, ClusterProfile, load_profile
from lorry_registry.errors import InvalidTaskError

EXAMPLE = Path(__file__).parents[4] / "infra" / "k8s" / "profile.yaml"


def load(folder: Path, document: Any) -> ClusterProfile:
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_profile(path)


def test_the_example_is_a_profile_and_its_commented_fields_are_too(tmp_path: Path) -> None:
    profile = load_profile(EXAMPLE)
    assert profile.secrets[0].variables["access-key-id"] == "AWS_ACCESS_KEY_ID"
    text = EXAMPLE.read_text("utf-8")
    for line in ("queue:", "image_pull_secrets:", "bases:"):
        assert f"# {line}" in text
        text = text.replace(f"# {line}", line)
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    opened = load_profile(path)
    assert opened.queue is not None
    assert opened.queue.name == "lorry"
    assert opened.bases == BasesProfile(claim="lorry-bases", path="/bases")


def test_two_claims_cannot_be_mounted_in_one_place(tmp_path: Path) -> None:
    volumes = [{"claim": "models", "path": "/bases"}]
    assert load(tmp_path, {"volumes": volumes}).volumes[0].path == "/bases"
    with pytest.raises(InvalidTaskError, match="two claims are mounted at /bases"):
        load(tmp_path, {"volumes": volumes, "bases": {"claim": "lorry-bases"}})


def test_every_step_asks_for_something(tmp_path: Path) -> None:
    profile = load(tmp_path, {})
    assert profile == ClusterProfile()
    for step in CLUSTER_STEPS:
        own = profile.find_step(step)
        assert own.cpu
        assert own.memory
        assert own.timeout_seconds


def test_a_step_keeps_the_defaults_that_it_does_not_name(tmp_path: Path) -> None:
    before = ClusterProfile().find_step("gate")
    profile = load(tmp_path, {"steps": {"gate": {"memory_limit": "3Gi"}}})
    assert profile.find_step("gate") == before.model_copy(update={"memory_limit": "3Gi"})
    assert profile.find_step("report") == ClusterProfile().find_step("report")


@pytest.mark.parametrize(
    ("document", "where", "what"),
    [
        ({"steps": {"train": {}}}, "steps", "there is no step train; the steps are prepare_data, finetune"),
        ({"steps": {"gate": {"memory": "4Gi"}}}, "steps.gate", "memory_limit is less than memory"),
        ({"steps": {"gate": {"cpu": "2000m"}}}, "steps.gate", "cpu_limit is less than cpu"),
        ({"steps": {"gate": {"memory": "lots"}}}, "steps.gate.memory", "pattern"),
        ({"steps": {"gate": 3}}, "steps.gate", "valid dictionary"),
        ({"steps": 3}, "steps", "valid dictionary"),
        ({"user": 0}, "user", "greater than or equal to 1"),
        ({"retry": {"max_duration": 5}}, "retry.max_duration", "valid string"),
        ({"secrets": [{"name": "s3", "variables": {}}]}, "secrets.0.variables", "at least 1"),
        ({"secrets": [{"name": "s3", "variables": {"a": "A-B"}}]}, "secrets.0.variables.a", "pattern"),
        ({"volumes": [{"claim": "b", "path": "bases"}]}, "volumes.0.path", "pattern"),
        ({"gpu": True}, "gpu", "there is no such field"),
    ],
)
def test_a_fault_is_named_by_its_field(tmp_path: Path, document: Any, where: str, what: str) -> None:
    with pytest.raises(InvalidTaskError) as caught:
        load(tmp_path, document)
    (fault,) = caught.value.faults
    assert fault.where == where
    assert what in fault.what


def test_all_faults_are_listed(tmp_path: Path) -> None:
    with pytest.raises(InvalidTaskError) as caught:
        load(tmp_path, {"user": 0, "group": 0, "gpu": True})
    assert {fault.where for fault in caught.value.faults} == {"user", "group", "gpu"}
