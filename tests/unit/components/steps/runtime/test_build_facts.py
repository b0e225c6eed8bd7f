"""What the environment of a step says about its run."""

import pytest

from lorry_components.steps.runtime.build_facts import read_build, read_sources, write_sources
from lorry_registry.errors import UsageError
from lorry_registry.files.digests import digest_bytes
from lorry_registry.records.provenance import Build, SourceRevision

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = digest_bytes(b"an image")


def test_a_process_says_little() -> None:
    assert read_build({}, "reviews", run="1", image="lorry:1") == Build(
        builder="urn:lorry:builder:process", run="1"
    )


@pytest.mark.parametrize(
    ("environment", "builder", "digest"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "urn:lorry:builder:kubernetes", DIGEST),
        ({"LORRY_BUILDER_ID": "https://ci.example.org"}, "https://ci.example.org", DIGEST),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "LORRY_IMAGE_DIGEST": digest_bytes(b"another")},
            "urn:lorry:builder:kubernetes",
            digest_bytes(b"another"),
        ),
    ],
)
def test_a_container_says_in_which_image(environment: dict[str, str], builder: str, digest: str) -> None:
    build = read_build(environment, "reviews", run="1", image=f"lorry@{DIGEST}")
    assert (build.builder, build.image, build.image_digest) == (builder, f"lorry@{DIGEST}", digest)


def test_each_task_has_its_own_commit() -> None:
    own, other = SourceRevision(commit=COMMIT, uri="https://a.example"), SourceRevision(commit="f" * 40)
    text = write_sources({"reviews": own, "*": other})
    assert read_sources(text) == {"reviews": own, "*": other}
    environment = {"LORRY_SOURCES": text}
    assert read_build(environment, "reviews", run="1", image="").source == own
    assert read_build(environment, "films", run="1", image="").source == other


@pytest.mark.parametrize(
    "environment",
    [
        {"LORRY_SOURCES": "main"},
        {"LORRY_SOURCES": '{"reviews": {"commit": "main"}}'},
        {"LORRY_IMAGE_DIGEST": "latest"},
    ],
)
def test_what_has_another_form_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError) as refusal:
        read_build(environment, "reviews", run="1", image="")
    assert refusal.value.where in environment
