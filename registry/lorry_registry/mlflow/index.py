"""MLflow as index and window: it shows what the ledger says, and is never read as truth.

A task has an experiment, a registered model and two aliases there; each training is a run, each adapter a
version. MLflow overwrites aliases blindly, so :func:`sync_aliases` derives them from the ledger each time and
checks them again afterwards. MLflow is imported on first use only.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lorry_registry.errors import TrackingError
from lorry_registry.ledger.events import Deletion
from lorry_registry.ledger.version_status import VersionStatus, judge_registration
from lorry_registry.manifest import Manifest
from lorry_registry.mlflow.connection import set_beside_others
from lorry_registry.mlflow.model_versions import ABSENT, ADAPTER_TAG, MlflowModels
from lorry_registry.mlflow.version_card import (
    describe_version,
    list_model_tags,
    list_run_tags,
    list_status_tags,
    list_version_tags,
)
from lorry_registry.records.adapter_names import name_run
from lorry_registry.records.training_record import TrainingRecord
from lorry_registry.registry import Registry

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"

# The champion that Lorry showed last: if the alias names another one, a user moved it.
_SHOWN_TAG = "lorry.champion"
_DELETED_TAG = "lorry.deleted"
_CONNECT_LINE = re.compile(r"^mlflow\.set_tracking_uri\(.*\)\n", re.MULTILINE)


class MlflowIndex(MlflowModels):
    """Runs, and on top of them the versions and aliases of each task's registered model."""

    def record_version(
        self,
        task: str,
        *,
        version: int,
        adapter_id: str,
        manifest: Manifest,
        source: str,
        run_id: str | None,
        model_id: str | None,
        reasons: Sequence[str],
        promoted: bool,
        status: VersionStatus | None = None,
        record: TrainingRecord | None = None,
    ) -> str:
        """Record an adapter as a version of the task's registered model; repeating it is harmless.

        MLflow counts versions by itself; ours is in the tag ``lorry.version``.

        Args:
            task: The task.
            version: The version in the ledger.
            adapter_id: The adapter.
            manifest: Its manifest.
            source: Where MLflow loads it from: ``models:/<model id>`` or an address.
            run_id: The run that trained it.
            model_id: The logged model that it is.
            reasons: The gate's reasons.
            promoted: Whether the gate let it pass.
            status: Its status in the ledger; None: the one at its registration.
            record: What is kept of its training beside the manifest.

        Returns:
            MLflow's number of the version.

        Raises:
            TrackingError: MLflow refuses, or has a registered model of this name that is not Lorry's.
        """
        if status is None:
            status = judge_registration(version, adapter_id, promoted=promoted, reasons=reasons)
        with self._connection.reporting(f"record v{version} of {task!r}"):
            self._ensure_model(task, manifest)
            self.check_model(task)
            known = self.find_version(task, adapter_id)
            if known is not None:
                self.show_version(known, manifest, status, record)
                return known
            source, run_id = self._resolve_source(source, run_id, model_id)
            created = self._client.create_model_version(
                task,
                source,
                run_id=run_id,
                tags=list_version_tags(manifest, version=version, adapter_id=adapter_id, promoted=promoted),
                await_creation_for=0,
                model_id=model_id,
            )
            kept = self._settle_twins(task, adapter_id, created)
            if model_id is not None:
                self._link_model(model_id, task, kept)
            # How to load it can be said only now that MLflow has given it a number.
            self.show_version(kept, manifest, status, record)
        return kept

    def show_version(
        self, number: str, manifest: Manifest, status: VersionStatus, record: TrainingRecord | None = None
    ) -> list[str]:
        """Bring one of MLflow's versions up to date: its description, what the ledger says of it, its run.

        Args:
            number: MLflow's number of the version.
            manifest: The adapter that it holds.
            status: Its status in the ledger.
            record: What is kept of its training beside the manifest.

        Returns:
            What was changed, in sentences.
        """
        record = record or TrainingRecord()
        method = record.label_method(manifest.recipe)
        task, tags = manifest.task, list_status_tags(status)
        name = f"MLflow's version {number}, which holds v{status.version},"
        changes = []
        with self._connection.reporting(f"describe {name}"):
            version = self._client.get_model_version(task, number)
            description = describe_version(
                manifest,
                status,
                number=number,
                tracking_address=self._connection.public_address,
                record=record,
            )
            wrong = {key: value for key, value in tags.items() if version.tags.get(key) != value}
            if wrong:
                self.set_version_tags(task, number, wrong)
                changes.append(f"{name} is now tagged {' and '.join(wrong.values())}")
            if not self._says_the_same(version.description or "", description):
                self._client.update_model_version(task, number, description)
                changes.append(f"the description of {name} is up to date now")
        if version.run_id and self.update_run(
            version.run_id,
            task,
            name=name_run(task, method, status.version),
            former=name_run(task, method),
            tags=list_run_tags(manifest, status, record),
        ):
            changes.append(f"the run that trained v{status.version} has its name and tags now")
        return changes

    def _says_the_same(self, present: str, wanted: str) -> bool:
        if self._connection.database_file is not None:
            return present == wanted
        # A server has several addresses, inside a cluster and outside: the last writer may keep its own.
        return _CONNECT_LINE.sub("", present) == _CONNECT_LINE.sub("", wanted)

    def show_model(self, manifest: Manifest, champion: VersionStatus | None) -> list[str]:
        """Tag a task's registered model with what its champion is; return what was changed, in sentences.

        Args:
            manifest: The champion, or the newest adapter if there is none.
            champion: How the champion stands; None: there is none.
        """
        task = manifest.task
        tags = list_model_tags(manifest, champion)
        with self._connection.reporting(f"describe the registered model {task!r}"):
            model = self._find_model(task)
            if model is None:
                return []
            wrong = {key: value for key, value in tags.items() if model.tags.get(key) != value}
            for key, value in wrong.items():
                self._tag_model(task, key, value)
        return [f"the registered model is now tagged {', '.join(wrong.values())}"] if wrong else []

    # Aliases

    def set_aliases(self, task: str, champion: str | None, challenger: str | None) -> list[str]:
        """Point the aliases ``champion`` and ``challenger`` at the versions of two adapters.

        An alias whose adapter is None is removed; so is one whose adapter MLflow does not know, because it
        must never name a different adapter from the ledger's.

        Returns:
            What was changed, in sentences.

        Raises:
            TrackingError: MLflow has no version of an adapter, or the registered model is not Lorry's.
        """
        self.check_model(task)
        wanted = {CHAMPION: champion, CHALLENGER: challenger}
        present = self.read_alias_versions(task)
        versions = {alias: self.find_version(task, name) if name else None for alias, name in wanted.items()}
        changed = {alias: version for alias, version in versions.items() if version != present.get(alias)}
        with self._connection.reporting(f"move the aliases of {task!r}"):
            for alias, version in changed.items():
                if version is None:
                    self._client.delete_registered_model_alias(task, alias)
                else:
                    set_beside_others(
                        functools.partial(self._client.set_registered_model_alias, task, alias, version),
                        functools.partial(self._has_alias, task, alias),
                    )
            tags = self._read_model_tags(task)
            shown = champion if versions[CHAMPION] else None
            if tags and tags.get(_SHOWN_TAG) != (shown or ""):
                self._tag_model(task, _SHOWN_TAG, shown or "")
        missing = [name for alias, name in wanted.items() if name and versions[alias] is None]
        if missing:
            raise TrackingError(
                f"MLflow has no version of {' and '.join(missing)}",
                where=self.address,
                todo="run: lorry reconcile",
            )
        return [
            f"the alias {alias} was {_name_version(present.get(alias))}, and is now {_name_version(version)}"
            for alias, version in changed.items()
        ]

    def _has_alias(self, task: str, alias: str) -> bool:
        model = self._find_model(task)
        return model is not None and alias in model.aliases

    def read_aliases(self, task: str) -> dict[str, str]:
        """Return the adapters that a task's aliases name, by the versions' tags; "" for one without a tag."""
        versions = self.read_alias_versions(task)
        with self._connection.reporting(f"read the aliases of {task!r}"):
            return {
                alias: self._client.get_model_version(task, version).tags.get(ADAPTER_TAG, "")
                for alias, version in versions.items()
            }

    def read_alias_versions(self, task: str) -> dict[str, str]:
        """Return MLflow's numbers of the versions that a task's aliases name."""
        # Searches return no aliases; only the model itself knows them.
        with self._connection.reporting(f"read the aliases of {task!r}"):
            model = self._find_model(task)
        return {alias: str(version) for alias, version in model.aliases.items()} if model else {}

    def show_deletion(self, task: str, deleted: Deletion | None) -> list[str]:
        """Tag the registered model of a task as deleted, or as present again.

        Returns:
            What was changed, in sentences.

        Raises:
            TrackingError: MLflow cannot be reached.
        """
        wanted = f"{deleted.at:%Y-%m-%d %H:%M UTC} by {deleted.by}" if deleted else None
        with self._connection.reporting(f"tag {task!r} as {'deleted' if deleted else 'present'}"):
            tags = self._read_model_tags(task)
            if not tags or tags.get(_DELETED_TAG) == wanted:
                return []
            if wanted is not None:
                self._tag_model(task, _DELETED_TAG, wanted)
                return [f"the task was deleted, and the tag {_DELETED_TAG} says so now"]
            self._client.delete_registered_model_tag(task, _DELETED_TAG)
        return [f"the task is there, and the tag {_DELETED_TAG} was removed"]

    def read_shown_champion(self, task: str) -> str | None:
        """Return the adapter that Lorry last made the champion here; "" for none, None if that is unknown."""
        with self._connection.reporting(f"read the registered model {task!r}"):
            return self._read_model_tags(task).get(_SHOWN_TAG)

    def identify_version_number(self, task: str, number: str) -> str | None:
        """Return the id of the adapter whose files one of MLflow's versions has, or None."""
        with self._connection.reporting(f"read MLflow's version {number} of {task!r}"):
            version = self._client.get_model_version(task, number)
        return self.identify_version(version)

    def set_version_tags(self, task: str, number: str, tags: Mapping[str, str]) -> None:
        """Set tags of one of MLflow's versions."""
        with self._connection.reporting(f"set tags of MLflow's version {number} of {task!r}"):
            for key, value in tags.items():
                set_beside_others(
                    functools.partial(self._client.set_model_version_tag, task, number, key, value),
                    functools.partial(self._has_version_tag, task, number, key),
                )

    def _has_version_tag(self, task: str, number: str, key: str) -> bool:
        return key in self._client.get_model_version(task, number).tags

    def remove_version_tag(self, task: str, number: str, key: str) -> None:
        """Remove a tag of one of MLflow's versions."""
        with self._connection.reporting(f"remove a tag of MLflow's version {number} of {task!r}"):
            self._client.delete_model_version_tag(task, number, key)

    def remove_version(self, task: str, number: str) -> None:
        """Remove one of MLflow's versions; that it is gone already is no error."""
        with self._connection.reporting(f"remove MLflow's version {number} of {task!r}"):
            # When the answer to a request is lost, MLflow's client sends it again.
            self._connection.attempt(lambda: self._client.delete_model_version(task, number), unless=ABSENT)

    def _resolve_source(
        self, source: str, run_id: str | None, model_id: str | None
    ) -> tuple[str, str | None]:
        if model_id is None:
            return source, run_id
        # Without a server MLflow would look the model up at its global tracking address, not at ours.
        model = self._client.get_logged_model(model_id)
        is_local = self._connection.is_database and source.startswith("models:/")
        return model.artifact_location if is_local else source, run_id or model.source_run_id

    def _settle_twins(self, task: str, adapter_id: str, created: "ModelVersion") -> str:
        """Return the version of an adapter that stays, and remove ours if that is another one.

        Two processes may have recorded the same adapter at once: both keep the one that came first. And
        MLflow's client sends a creation whose answer is lost again: each attempt may have made a version.
        """
        first = self.find_version(task, adapter_id) or str(created.version)
        query = f"name = '{task}' and tags.`{ADAPTER_TAG}` = '{adapter_id}'"
        for version in self._client.search_model_versions(query):
            if version.source == created.source and str(version.version) != first:
                self.remove_version(task, str(version.version))
        return first

    def _link_model(self, model_id: str, task: str, version: str) -> None:
        tag = "mlflow.modelVersions"
        links = json.loads(self._client.get_logged_model(model_id).tags.get(tag, "[]"))
        link = {"name": task, "version": version}
        if link not in links:
            self._client.set_logged_model_tags(model_id, {tag: json.dumps([*links, link])})


def sync_aliases(index: MlflowIndex, registry: Registry, task: str) -> list[str]:
    """Make MLflow's aliases of a task match the ledger.

    The champion is the ledger's; the challenger is the newest version, unless that is the champion. A task
    that was deleted has neither, and a tag that says so.

    Returns:
        What was changed, in sentences.

    Raises:
        TrackingError: MLflow cannot be reached, does not know an adapter, or has a registered model of this
            name that is not this registry's.
        StoreError: The ledger cannot be read.
    """
    index.check_model(task, registry.registry_id)
    changes: list[str] = []
    wanted = _derive_aliases(registry, task)
    while True:
        changes += index.set_aliases(task, *wanted)
        changes += index.show_deletion(task, registry.ledger.read_state(task).deleted)
        # Another process may have moved the ledger in between, and set the aliases before we did.
        present = _derive_aliases(registry, task)
        if present == wanted:
            return changes
        wanted = present


def _derive_aliases(registry: Registry, task: str) -> tuple[str | None, str | None]:
    state = registry.ledger.read_state(task)
    versions = registry.list_versions(task) if state.deleted is None else []
    champion = state.champion
    champion_id = champion.adapter_id if champion else None
    newest = versions[-1].adapter_id if versions else None
    return champion_id, newest if newest != champion_id else None


def _name_version(version: str | None) -> str:
    return f"MLflow's version {version}" if version else "not set"
