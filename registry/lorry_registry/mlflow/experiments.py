"""Experiments in MLflow: one for a task's trainings, one for its studies; and where MLflow's files are."""

import functools
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_registry.errors import TrackingError
from lorry_registry.mlflow.connection import MlflowConnection, set_beside_others
from lorry_registry.mlflow.network import PROBING, STEADY, RequestLimits
from lorry_registry.mlflow.ownership import REGISTRY_TAG, TASK_TAG, check_owner
from lorry_registry.mlflow.page_addresses import TrainingsPage
from lorry_registry.mlflow.relocation import STUDIES_FOLDER, find_former_root, relocate_artifacts
from lorry_registry.mlflow.version_card import NOTE_TAG
from lorry_registry.mlflow.views import VIEW_KEY, VIEW_TAG, is_own_view

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# MLflow's pages then show such an experiment's trainings and their curves, not the traces of a chat.
_TRAINING_EXPERIMENT = {"mlflow.experimentKind": "custom_model_development"}

_ACTIVE = "active"


def name_experiment(task: str, *, of_studies: bool = False) -> str:
    """Return the name of a task's experiment, or of the one that holds its studies."""
    return f"{task} (studies)" if of_studies else task


class MlflowExperiments:
    """Experiments in one MLflow.

    Every method raises ``TrackingError`` when MLflow cannot be reached or refuses, and ``MissingExtraError``
    when the address needs a library that is not installed.

    Args:
        tracking_uri: The address of a server or a database.
        artifact_root: Where artifacts go when the address is a SQLite file; None: ``mlflow-artifacts`` beside
            that file. With every other address MLflow decides.
        limits: How long a request may take.
    """

    def __init__(
        self, tracking_uri: str, artifact_root: Path | None = None, *, limits: RequestLimits = STEADY
    ) -> None:
        self.tracking_uri = tracking_uri
        self._connection = MlflowConnection(tracking_uri, limits)
        self._artifact_root = artifact_root

    @property
    def address(self) -> str:
        """The tracking address without a password, for messages."""
        return self._connection.address

    def limiting(self, seconds: float) -> AbstractContextManager[None]:
        """Make no request after some seconds: what comes later raises ``TrackingError``."""
        return self._connection.limiting(seconds)

    def has_database(self) -> bool:
        """Return whether there is anything to read: False only for a SQLite file that does not exist yet."""
        path = self._connection.database_file
        return path is None or path.exists()

    def check_reachable(self) -> None:
        """Raise unless MLflow answers; asked before anything is spent."""
        with self._connection.reporting("reach it", PROBING):
            self._client.search_experiments(max_results=1)

    def check_place(self) -> None:
        """Raise if this MLflow is a SQLite file in a folder that was moved; nothing must be written then.

        Raises:
            TrackingError: So it is, or the file is not a database of MLflow's.
        """
        database, root = self._connection.database_file, self.artifact_folder
        former = find_former_root(database, root) if database is not None and root is not None else None
        if former is not None:
            raise TrackingError(
                f"this MLflow was moved, and would go on writing to the place where it was before: {former}",
                where=self.address,
                todo="run: lorry reconcile",
            )

    def follow_relocation(self) -> list[str]:
        """Make an MLflow whose folder was moved name the new place; return what was changed, in sentences.

        Raises:
            TrackingError: The database cannot be written.
        """
        database, root = self._connection.database_file, self.artifact_folder
        former = find_former_root(database, root) if database is not None and root is not None else None
        if database is None or root is None or former is None:
            return []
        count = relocate_artifacts(database, former, root)
        return [
            f"MLflow's files were moved from {former} to {root}: {count} of its addresses named the "
            "old place, and name the new one now"
        ]

    def ensure_experiment(
        self, task: str, registry_id: str | None = None, *, of_studies: bool = False
    ) -> str:
        """Return the id of a task's experiment, created if need be; safe when two processes do so at once.

        Args:
            task: The task.
            registry_id: The registry that it is to belong to; None: to the one that asks for it first.
            of_studies: Whether the one is meant that holds the task's studies, apart from its trainings.

        Raises:
            TrackingError: Another client made an experiment of this name, or it belongs to another registry;
                it was not touched.
        """
        name = name_experiment(task, of_studies=of_studies)
        location = self._locate_artifacts(task, of_studies=of_studies)
        tags = {
            TASK_TAG: task,
            **({REGISTRY_TAG: registry_id} if registry_id else {}),
            **_TRAINING_EXPERIMENT,
        }
        if of_studies:
            tags |= {NOTE_TAG: f"Methods, ranks, targets and prompts compared on the task {task}."}
        with self._connection.reporting(f"create the experiment {name!r}"):
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                created = self._connection.attempt(
                    lambda: self._client.create_experiment(name, location, tags),
                    unless="RESOURCE_ALREADY_EXISTS",
                )
                experiment = self._client.get_experiment(created) if created else self._find_experiment(name)
        self._check_experiment(experiment, task, registry_id)
        self.check_place()
        experiment_id = str(experiment.experiment_id)
        if registry_id is not None and REGISTRY_TAG not in experiment.tags:
            # A study began it, before there was a registry.
            with self._connection.reporting(f"tag the experiment {name!r}"):
                set_beside_others(
                    functools.partial(
                        self._client.set_experiment_tag, experiment_id, REGISTRY_TAG, registry_id
                    ),
                    functools.partial(self._has_experiment_tag, experiment_id, REGISTRY_TAG),
                    replaces=False,
                )
                experiment = self._client.get_experiment(experiment_id)
            self._check_experiment(experiment, task, registry_id)
        return experiment_id

    def check_experiment(self, task: str, registry_id: str | None = None) -> None:
        """Raise if the experiment of a task exists and is not Lorry's, or is another registry's, or deleted.

        Raises:
            TrackingError: So it is; it was not touched.
        """
        with self._connection.reporting(f"read the experiment {task!r}"):
            experiment = self._client.get_experiment_by_name(task)
        if experiment is not None:
            self._check_experiment(experiment, task, registry_id)

    def restore_experiment(self, task: str, registry_id: str) -> bool:
        """Restore a task's experiment if it was deleted in MLflow; return whether it was.

        Raises:
            TrackingError: It is not Lorry's, or another registry's; it was not touched.
        """
        with self._connection.reporting(f"restore the experiment {task!r}"):
            experiment = self._client.get_experiment_by_name(task)
            if experiment is None or experiment.lifecycle_stage == _ACTIVE:
                return False
            self._check_owner(experiment, task, registry_id)
            self._client.restore_experiment(experiment.experiment_id)
        return True

    def find_experiment(self, task: str) -> str | None:
        """Return the id of a task's experiment, or None if there is none yet."""
        found = self.find_trainings(task)
        return None if found is None else found.experiment

    def find_trainings(self, task: str) -> TrainingsPage | None:
        """Return the page of a task's trainings, or None if there is none yet."""
        with self._connection.reporting(f"find the experiment {task!r}"):
            experiment = self._client.get_experiment_by_name(task)
        if experiment is None:
            return None
        return TrainingsPage(str(experiment.experiment_id), VIEW_KEY if VIEW_TAG in experiment.tags else "")

    def describe_experiment(self, task: str, text: str) -> bool:
        """Give a task's experiment a description, unless it has one; return whether it was given."""
        with self._connection.reporting(f"describe the experiment {task!r}"):
            experiment = self._client.get_experiment_by_name(task)
            if experiment is None or experiment.tags.get(NOTE_TAG):
                return False
            set_beside_others(
                functools.partial(self._client.set_experiment_tag, experiment.experiment_id, NOTE_TAG, text),
                functools.partial(self._has_experiment_tag, experiment.experiment_id, NOTE_TAG),
                replaces=False,
            )
        return True

    def show_view(self, task: str, view: str, *, of_studies: bool = False) -> bool:
        """Give a task's experiment its view of results; one that a person saved in its place is kept.

        Args:
            task: The task.
            view: As :func:`~lorry_registry.mlflow.views.build_view` builds it.
            of_studies: Whether the experiment of the task's studies is meant.

        Returns:
            Whether it was given.
        """
        name = name_experiment(task, of_studies=of_studies)
        with self._connection.reporting(f"set the view of the experiment {name!r}"):
            experiment = self._client.get_experiment_by_name(name)
            present = experiment.tags.get(VIEW_TAG, "") if experiment is not None else view
            if experiment is None or present == view or (present and not is_own_view(present)):
                return False
            set_beside_others(
                functools.partial(self._client.set_experiment_tag, experiment.experiment_id, VIEW_TAG, view),
                functools.partial(self._has_experiment_tag, experiment.experiment_id, VIEW_TAG),
            )
        return True

    def _has_experiment_tag(self, experiment_id: str, key: str) -> bool:
        return key in self._client.get_experiment(experiment_id).tags

    @property
    def _client(self) -> "MlflowClient":
        return self._connection.client

    @property
    def artifact_folder(self) -> Path | None:
        """The folder of all artifacts when the address is a SQLite file, else None."""
        database = self._connection.database_file
        if database is None:
            return None
        # MLflow's default is below the working folder, which is a different one in every step of a run.
        return (self._artifact_root or database.with_name("mlflow-artifacts")).absolute()

    def _locate_artifacts(self, task: str, *, of_studies: bool = False) -> str | None:
        root = self.artifact_folder
        if root is None:
            return None
        return (root / STUDIES_FOLDER / task if of_studies else root / task).as_uri()

    def _check_experiment(self, experiment: Any, task: str, registry_id: str | None) -> None:
        self._check_owner(experiment, task, registry_id)
        if experiment.lifecycle_stage != _ACTIVE:
            raise TrackingError(
                f"the experiment {task!r} was deleted in MLflow",
                where=self.address,
                todo=f"restore it: mlflow experiments restore --experiment-id {experiment.experiment_id}",
            )

    def _check_owner(self, experiment: Any, task: str, registry_id: str | None) -> None:
        check_owner(
            "experiment",
            task,
            experiment.tags,
            registry_id,
            address=self.address,
            then="the command again",
        )

    def _find_experiment(self, task: str) -> Any:
        experiment = self._client.get_experiment_by_name(task)
        if experiment is None:
            raise TrackingError(
                f"the experiment {task!r} disappeared while it was being created",
                where=self.address,
                todo="try again",
            )
        return experiment
