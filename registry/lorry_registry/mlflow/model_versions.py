"""Registered models and versions in MLflow: whose they are, and which adapter a version really holds.

Anybody may edit MLflow, so neither a tag nor a name is taken for proof: a registered model is ours if it says
so and no other registry does, and a version holds the adapter whose manifest lies among its files.
"""

import contextlib
import io
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lorry_registry.files.digests import digest_bytes
from lorry_registry.manifest import MANIFEST_NAME, Manifest
from lorry_registry.mlflow.connection import set_beside_others
from lorry_registry.mlflow.ownership import REGISTRY_TAG, TASK_TAG, check_owner
from lorry_registry.mlflow.training_runs import MlflowRuns
from lorry_registry.mlflow.version_card import describe_model

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

ADAPTER_TAG = "lorry.adapter_id"

ABSENT = "RESOURCE_DOES_NOT_EXIST"
_PRESENT = "RESOURCE_ALREADY_EXISTS"
_MODEL_DOCUMENT = "MLmodel"
_FLAVOR = "lorry"
# The only code that a model of ours may name; MLflow would import any other.
LOADER = "lorry_components.inference.mlflow_flavor"
# What lies there may be anybody's: nothing larger is read.
_MAX_BYTES = 4 << 20
_LOGGED_MODEL = re.compile(r"models:/(m-[A-Za-z0-9]+)")


class MlflowModels(MlflowRuns):
    """Runs, and the registered models with their versions."""

    def claim_model(self, task: str, manifest: Manifest, registry_id: str) -> None:
        """Make sure that the registered model of a task is there and belongs to a registry.

        Args:
            task: The task.
            manifest: One of its adapters, for the description of a new registered model.
            registry_id: The registry that writes to it. A model that names none becomes this one's.

        Raises:
            TrackingError: Another client made a model of this name, or it belongs to another registry.
        """
        with self._connection.reporting(f"find the registered model {task!r}"):
            self._ensure_model(task, manifest, registry_id)
            if REGISTRY_TAG not in self._read_model_tags(task):
                self.check_model(task, registry_id)
                self._tag_model(task, REGISTRY_TAG, registry_id)
        # Read again: of two registries that claim it at once, one does not get it.
        self.check_model(task, registry_id)

    def _tag_model(self, task: str, key: str, value: str) -> None:
        # Which registry a model belongs to is settled by the first writer.
        set_beside_others(
            lambda: self._client.set_registered_model_tag(task, key, value),
            lambda: key in self._read_model_tags(task),
            replaces=key != REGISTRY_TAG,
        )

    def check_model(self, task: str, registry_id: str | None = None) -> None:
        """Raise if the registered model of a task exists and is not Lorry's, or is another registry's.

        Raises:
            TrackingError: So it is; it was not touched.
        """
        with self._connection.reporting(f"read the registered model {task!r}"):
            model = self._find_model(task)
        if model is None:
            return
        check_owner(
            "registered model",
            task,
            model.tags,
            registry_id,
            address=self.address,
            then=f"lorry reconcile {task}",
        )

    def find_version(self, task: str, adapter_id: str) -> str | None:
        """Return MLflow's number of the version that holds an adapter; the lowest, if there are several.

        A version counts if it is tagged with the adapter and its files are the adapter's.
        """
        query = f"name = '{task}' and tags.`{ADAPTER_TAG}` = '{adapter_id}'"
        with self._connection.reporting("search versions"):
            versions = sorted(
                self._client.search_model_versions(query), key=lambda version: int(version.version)
            )
        matches = (version for version in versions if self.identify_version(version) == adapter_id)
        match = next(matches, None)
        return None if match is None else str(match.version)

    def identify_version(self, version: "ModelVersion") -> str | None:
        """Return the id of the adapter whose files a version has, or None if it has no adapter's.

        The id is the digest of the manifest among the files; ``MLmodel``, if there is one, must name the same
        and no foreign code. The other files are re-hashed on loading.
        """
        what = f"read the files of MLflow's version {version.version}"
        with self._connection.reporting(what), self._connection.transferring():
            files = self._open_files(version)
            manifest = None if files is None else _read_file(files, MANIFEST_NAME)
            document = None if files is None else _read_file(files, _MODEL_DOCUMENT)
        if manifest is None:
            return None
        held = digest_bytes(manifest)
        return held if document is None or _read_adapter_id(document) == held else None

    def list_model_versions(self, task: str) -> list["ModelVersion"]:
        """Return all versions of a task's registered model, the oldest first."""
        versions: list[ModelVersion] = []
        token: str | None = None
        with self._connection.reporting(f"list the versions of {task!r}"):
            while True:
                page = self._client.search_model_versions(f"name = '{task}'", page_token=token)
                versions += page
                token = page.token
                if not token:
                    return sorted(versions, key=lambda version: int(version.version))

    def find_copies(self, task: str) -> list["ModelVersion"]:
        """Return the versions of other registered models that have the tags of a task's versions."""
        with self._connection.reporting(f"look for copies of the registered model {task!r}"):
            tagged = self._client.search_model_versions(f"tags.`{TASK_TAG}` = '{task}'")
        return [version for version in tagged if version.name != task]

    def find_tagged_versions(self, tag: str) -> list["ModelVersion"]:
        """Return the versions of all registered models that have a tag, with any value."""
        with self._connection.reporting(f"search versions with the tag {tag}"):
            return list(self._client.search_model_versions(f"tags.`{tag}` LIKE '%'"))

    def find_run(self, task: str, adapter_id: str) -> str | None:
        """Return the run that MLflow names for the version that holds an adapter."""
        number = self.find_version(task, adapter_id)
        if number is None:
            return None
        with self._connection.reporting(f"read MLflow's version {number} of {task!r}"):
            return self._client.get_model_version(task, number).run_id or None

    def _ensure_model(self, task: str, manifest: Manifest, registry_id: str | None = None) -> None:
        if self._find_model(task) is not None:
            return
        text = describe_model(task, manifest.description, manifest.base.model)
        tags = {TASK_TAG: task} | ({REGISTRY_TAG: registry_id} if registry_id else {})
        self._connection.attempt(
            lambda: self._client.create_registered_model(task, tags, text), unless=_PRESENT
        )

    def _find_model(self, task: str) -> Any:
        return self._connection.attempt(lambda: self._client.get_registered_model(task), unless=ABSENT)

    def _read_model_tags(self, task: str) -> dict[str, str]:
        model = self._find_model(task)
        return dict(model.tags) if model else {}

    def _open_files(self, version: "ModelVersion") -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        # This is where MLflow loads the version from, no matter what other fields say.
        source = self._client.get_model_version_download_uri(version.name, str(version.version))
        if source.startswith("models:"):
            logged = _LOGGED_MODEL.fullmatch(source)
            if logged is None:
                return None
            model_id = logged.group(1)
            model = self._connection.attempt(lambda: self._client.get_logged_model(model_id), unless=ABSENT)
            if model is None:
                return None
            source = model.artifact_location
        return get_artifact_repository(source, tracking_uri=self.tracking_uri)


def _read_file(files: Any, name: str) -> bytes | None:
    sizes = {entry.path: entry.file_size for entry in files.list_artifacts() if not entry.is_dir}
    if name not in sizes or (sizes[name] or 0) > _MAX_BYTES:
        return None
    # MLflow draws a progress bar for each file.
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stderr(io.StringIO()):
        return Path(files.download_artifacts(name, scratch)).read_bytes()


def _read_adapter_id(document: bytes) -> str | None:
    try:
        flavors = yaml.safe_load(document)["flavors"]
        loaded_by = flavors.get("python_function", {"loader_module": LOADER})
        if loaded_by["loader_module"] != LOADER or "code" in loaded_by:
            return None
        adapter_id = flavors[_FLAVOR]["adapter_id"]
        # A few aliases make a list of trillions, which must not be turned into text.
        return adapter_id if isinstance(adapter_id, str) else None
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None
