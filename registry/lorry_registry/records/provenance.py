"""The provenance of an adapter: an in-toto statement of its run, with SLSA provenance.

The fields are those of https://in-toto.io/Statement/v1 and https://slsa.dev/provenance/v1. It is a document
beside the adapter and no part of its manifest: the same training gives the same adapter id for any user,
and when. The event that registers the version names the document's digest, so that it cannot be exchanged;
where events are signed, the signature covers it too.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from lorry_registry.errors import AdapterRejectedError
from lorry_registry.files.digests import canonical_json, digest_bytes
from lorry_registry.ledger.events import Event
from lorry_registry.manifest import MANIFEST_NAME, Digest, Manifest
from lorry_registry.records.sidecars import read_sidecar
from lorry_registry.signing.attestations import provenance_key
from lorry_registry.stores import Store

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:lorry:adapter-training:1"
# The key in an event's details.
PROVENANCE_DETAIL = "provenance"
_MAX_BYTES = 1 << 20
_TODO = "restore it from a backup; the adapter itself is judged by its own files"


class SourceRevision(BaseModel):
    """The commit that a task's file was read at.

    Attributes:
        uri: The address of the repository, without a password; "" if it has none.
        commit: Git's name of the commit.
        is_dirty: Whether files differed from the commit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str = ""
    commit: Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
    is_dirty: bool = False


class Build(BaseModel):
    """What is known of a run beside what is in the manifest.

    Attributes:
        builder: Who ran it, as a URI.
        run: The pipeline run's id.
        mlflow_run: MLflow's id of the run, if there is one.
        source: Where the task's file comes from, if it lies in a repository.
        image: The image that the step ran in, if it did.
        image_digest: The image's digest, if it is known.
        started_at: When the first step of the task started, in UTC.
        finished_at: When it was registered, in UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    builder: str
    run: str = ""
    mlflow_run: str = ""
    source: SourceRevision | None = None
    image: str = ""
    image_digest: Digest | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


def build_statement(manifest: Manifest, build: Build) -> dict[str, JsonValue]:
    """Return the statement about an adapter.

    Args:
        manifest: The adapter's manifest.
        build: What is known of the run.
    """
    metadata: dict[str, JsonValue] = {"invocationId": build.run} if build.run else {}
    if build.started_at is not None:
        metadata["startedOn"] = _format_time(build.started_at)
    if build.finished_at is not None:
        metadata["finishedOn"] = _format_time(build.finished_at)
    builder: dict[str, JsonValue] = {"id": build.builder}
    if "lorry" in manifest.libraries:
        builder["version"] = {"lorry": manifest.libraries["lorry"]}
    details: dict[str, JsonValue] = {"builder": builder, "metadata": metadata}
    if build.mlflow_run:
        details["byproducts"] = [{"name": "mlflow-run", "uri": f"runs:/{quote(build.mlflow_run)}"}]
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": _hex(digest)}} for name, digest in _list_subjects(manifest)
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "task": manifest.task,
                    "kind": manifest.kind,
                    "method": manifest.method,
                    "recipe": dict(manifest.recipe),
                },
                "internalParameters": {"recipeDigest": manifest.inputs.recipe_digest},
                "resolvedDependencies": [*_list_inputs(manifest), *_list_surroundings(build)],
            },
            "runDetails": details,
        },
    }


def attach_provenance(store: Store, manifest: Manifest, build: Build) -> str:
    """Write the statement about an adapter beside it; return the digest, which its event is to name.

    Raises:
        StoreError: The store cannot be written.
    """
    content = canonical_json(build_statement(manifest, build))
    digest = digest_bytes(content)
    store.create(provenance_key(manifest.adapter_id, digest), content)
    return digest


def find_provenance(event: Event) -> str | None:
    """Return the digest of the statement that an event names, or None if it names none."""
    digest = event.details.get(PROVENANCE_DETAIL)
    return digest if isinstance(digest, str) else None


def read_provenance(store: Store, manifest: Manifest, digest: str) -> dict[str, Any]:
    """Return the statement about an adapter, checked against its digest and the manifest.

    Args:
        store: The store.
        manifest: The adapter's manifest.
        digest: The digest that the event names.

    Raises:
        AdapterRejectedError: It is missing, was changed, or is about something else.
        StoreError: The store cannot be read, or the digest is none.
    """
    key = provenance_key(manifest.adapter_id, digest)
    content = read_sidecar(store, key, digest, name="its provenance", todo=_TODO)
    return check_statement(content, manifest, where=store.locate(key))


def check_statement(content: bytes, manifest: Manifest, *, where: str) -> dict[str, Any]:
    """Return a statement that agrees with an adapter's manifest.

    Raises:
        AdapterRejectedError: It is no statement of this form, or says something else than the manifest.
    """
    try:
        if len(content) > _MAX_BYTES:
            raise ValueError("it is too large")
        statement: dict[str, Any] = json.loads(content)
        said = _read_claims(statement)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AdapterRejectedError(
            f"its provenance cannot be read: {type(error).__name__}: {error}", where=where, todo=_TODO
        ) from error
    wanted = _read_claims(build_statement(manifest, Build(builder="")))
    wrong = [name for name in wanted if said.get(name) != wanted[name]]
    if wrong:
        raise AdapterRejectedError(
            f"its provenance disagrees with its manifest on {', '.join(wrong)}", where=where, todo=_TODO
        )
    return statement


def _read_claims(statement: Any) -> dict[str, Any]:
    """Return what a statement says that a manifest says as well."""
    definition = statement["predicate"]["buildDefinition"]
    claims = {
        "its form": (statement["_type"], statement["predicateType"], definition["buildType"]),
        "files": {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]},
        "recipe": (definition["externalParameters"], definition["internalParameters"]["recipeDigest"]),
    }
    for entry in definition["resolvedDependencies"]:
        name = str(entry["name"])
        if name not in ("source", "image"):
            claims[name] = (entry.get("uri"), entry.get("digest"))
    return claims


def _list_subjects(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield MANIFEST_NAME, manifest.adapter_id
    for entry in manifest.files:
        yield entry.name, entry.sha256


def _list_inputs(manifest: Manifest) -> Iterator[dict[str, JsonValue]]:
    base = manifest.base
    described: dict[str, JsonValue] = {"architecture": base.architecture}
    if base.revision:
        described["revision"] = base.revision
    yield {
        "name": "base",
        "uri": _locate_base(base.model),
        "digest": {"sha256": _hex(base.fingerprint)},
        "annotations": described,
    }
    # Each digest is over the names and digests of several files, or over rows: what lorry recomputes.
    yield {"name": "data", "digest": {"sha256": _hex(manifest.inputs.source_digest)}}
    yield {"name": "prepared-data", "digest": {"sha256": _hex(manifest.inputs.data_digest)}}
    for name, version in sorted(manifest.libraries.items()):
        yield {"name": f"library {name}", "uri": f"pkg:pypi/{name}@{quote(version)}"}


def _list_surroundings(build: Build) -> Iterator[dict[str, JsonValue]]:
    if build.source is not None:
        source: dict[str, JsonValue] = {
            "name": "source",
            "digest": {"gitCommit": build.source.commit},
            "annotations": {"dirty": build.source.is_dirty},
        }
        if build.source.uri:
            source["uri"] = f"git+{build.source.uri}@{build.source.commit}"
        yield source
    if build.image:
        image: dict[str, JsonValue] = {"name": "image", "uri": f"oci:{quote(build.image, safe='/:@.')}"}
        if build.image_digest is not None:
            image["digest"] = {"sha256": _hex(build.image_digest)}
        yield image


def _locate_base(model: str) -> str:
    if Path(model).is_absolute():
        return Path(model).as_uri()
    return model if model.startswith(("package:", "bases:")) else f"hub:{quote(model)}"


def _format_time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
