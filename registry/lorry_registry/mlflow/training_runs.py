"""Experiments, runs and logged models in MLflow: what a training leaves there, apart from versions."""

import contextlib
import io
import json
import math
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.mlflow.dataset_inputs import RunDataset
from lorry_registry.mlflow.experiments import MlflowExperiments
from lorry_registry.mlflow.kubeflow_pages import describe_kubeflow_run
from lorry_registry.mlflow.ownership import TASK_TAG
from lorry_registry.mlflow.page_addresses import is_server, locate_run
from lorry_registry.mlflow.version_card import NOTE_TAG, is_own_note
from lorry_registry.text.users import name_user

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.models import Model

# MLflow's own limits, from mlflow/utils/validation.py.
_MAX_PARAMETER_LENGTH = 6000
_MAX_TAG_LENGTH = 8000
_PARAMETERS_PER_BATCH = 100
_METRICS_PER_BATCH = 1000
_FORBIDDEN_IN_NAMES = re.compile(r"[^\w\-. /]")

_MODEL_DOCUMENT = "MLmodel"
_ABSENT = "RESOURCE_DOES_NOT_EXIST"
_VERSION_TAG = "lorry.version"
_IDLE_TAG = "lorry.idle_ms"


class MlflowRuns(MlflowExperiments):
    """Experiments, runs and logged models in one MLflow."""

    def open_run(
        self,
        task: str,
        *,
        name: str,
        tags: Mapping[str, str],
        run_id: str | None = None,
        registry_id: str | None = None,
        of_studies: bool = False,
    ) -> str:
        """Start a run in a task's experiment and return its id.

        Args:
            task: The task.
            name: The run's name.
            tags: Its tags.
            run_id: A run that the caller has opened already; None opens a new one.
            registry_id: The registry that the experiment of a new run belongs to, as in
                :meth:`ensure_experiment`.
            of_studies: Whether it belongs to the task's studies, which have an experiment of their own.
        """
        tags = _cut({TASK_TAG: task, **tags}, _MAX_TAG_LENGTH)
        if run_id is not None:
            with self._connection.reporting(f"use the run {run_id}"):
                run = self._client.get_run(run_id)
                self._client.update_run(run_id, status="RUNNING")
                # In one that was opened for us, nothing was done yet.
                idle = self._count_idle(run) if TASK_TAG in run.data.tags else {}
            self.set_tags(run_id, tags | idle)
            return run_id
        experiment_id = self.ensure_experiment(task, registry_id, of_studies=of_studies)
        tags = {"mlflow.user": name_user(), **tags}
        with self._connection.reporting("open a run"):
            return str(self._client.create_run(experiment_id, run_name=name, tags=tags).info.run_id)

    def _count_idle(self, run: "Run") -> dict[str, str]:
        """Return the tag with the milliseconds in which nothing was done in a run that is gone on with.

        MLflow shows the time from the start of a run to its end as its duration.
        """
        before = int(run.data.tags.get(_IDLE_TAG, 0))
        # Its end was set back by these.
        ended = run.info.end_time + before if run.info.end_time else 0
        losses = self._client.get_metric_history(run.info.run_id, "train/loss")
        last = max([run.info.start_time, ended, *(metric.timestamp for metric in losses)])
        return {_IDLE_TAG: str(before + max(int(time.time() * 1000) - last, 0))}

    def has_run(self, run_id: str) -> bool:
        """Return whether a run is known here, and not deleted."""
        with self._connection.reporting(f"look for the run {run_id}"):
            run = self._connection.attempt(lambda: self._client.get_run(run_id), unless=_ABSENT)
        return run is not None and run.info.lifecycle_stage == "active"

    def restore_run(self, run_id: str) -> bool:
        """Restore a deleted run; return False if it is gone for good."""
        with self._connection.reporting(f"restore the run {run_id}"):
            if self._connection.attempt(lambda: self._client.get_run(run_id), unless=_ABSENT) is None:
                return False
            self._client.restore_run(run_id)
        return True

    def locate_run(self, run_id: str) -> str:
        """Return the address of a run's page; empty where MLflow is no server, or does not say it."""
        if not is_server(self._connection.public_address):
            return ""
        with self._connection.reporting(f"look for the run {run_id}"):
            run = self._connection.attempt(lambda: self._client.get_run(run_id), unless=_ABSENT)
        if run is None:
            return ""
        return locate_run(self._connection.public_address, run.info.experiment_id, run_id)

    def log_parameters(self, run_id: str, parameters: Mapping[str, Any]) -> None:
        """Record parameters; nested ones get dotted names, values are cut to MLflow's 6000 characters.

        What is None is left out: it says that a setting is not used, and would fill the page.
        """
        from mlflow.entities import Param

        flat = _cut(dict(_flatten("", parameters)), _MAX_PARAMETER_LENGTH)
        entries = [Param(key, value) for key, value in flat.items()]
        with self._connection.reporting("log parameters"):
            for start in range(0, len(entries), _PARAMETERS_PER_BATCH):
                self._client.log_batch(run_id, params=entries[start : start + _PARAMETERS_PER_BATCH])

    def log_metrics(
        self,
        run_id: str,
        metrics: Mapping[str, float],
        step: int | None = None,
        *,
        model_id: str | None = None,
    ) -> None:
        """Record numbers; NaN and infinities are left out.

        Args:
            run_id: The run.
            metrics: Names and values.
            step: The optimizer step that they belong to.
            model_id: A logged model that they belong to as well.
        """
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [
            Metric(_clean_name(name), float(value), now, step or 0, model_id=model_id)
            for name, value in metrics.items()
            if math.isfinite(value)
        ]
        with self._connection.reporting("log metrics"):
            for start in range(0, len(entries), _METRICS_PER_BATCH):
                self._client.log_batch(run_id, metrics=entries[start : start + _METRICS_PER_BATCH])

    def log_artifact(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Upload a file, or all files of a folder, to a folder of the run's artifacts."""
        files = _list_files(path) if path.is_dir() else [path]
        size = max((file.stat().st_size for file in files), default=0)
        with self._connection.reporting(f"upload {path.name}"), self._connection.transferring(size):
            if path.is_dir():
                self._client.log_artifacts(run_id, str(path), folder)
            else:
                self._client.log_artifact(run_id, str(path), folder)

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Upload a text as one of the run's artifacts."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / name
            write_whole_text(path, text)
            self.log_artifact(run_id, path)

    def log_datasets(self, run_id: str, datasets: Sequence[RunDataset]) -> None:
        """Record the data that a run was made from; repeating it is harmless."""
        with self._connection.reporting("log the data sets"):
            self._client.log_inputs(run_id, [dataset.build_input() for dataset in datasets])

    def update_run(self, run_id: str, task: str, *, name: str, former: str, tags: Mapping[str, str]) -> bool:
        """Bring the name and the tags of the run that trained a version up to date.

        A name or a note that a person or a backend gave is kept, and so are the tags of a run that trained
        another version as well.

        Args:
            run_id: The run.
            task: The task that it must be of.
            name: Its name from now on.
            former: The name that Lorry gave it before.
            tags: Its tags, of which ``lorry.version`` names the version.

        Returns:
            Whether anything was changed.
        """
        with self._connection.reporting(f"update the run {run_id}"):
            run = self._connection.attempt(lambda: self._client.get_run(run_id), unless=_ABSENT)
            if run is None or run.info.lifecycle_stage != "active":
                return False
            known, wanted = run.data.tags, _cut(tags, _MAX_TAG_LENGTH)
            if known.get("lorry.task") != task or known.get(_VERSION_TAG) not in (None, tags[_VERSION_TAG]):
                return False
            link = describe_kubeflow_run(known)
            if link and NOTE_TAG in wanted:
                wanted[NOTE_TAG] += f"\n\n{link}"
            if not is_own_note(known.get(NOTE_TAG, "") or wanted.get(NOTE_TAG, "")):
                wanted.pop(NOTE_TAG, None)
            wrong = {key: value for key, value in wanted.items() if known.get(key) != value}
            is_ours = run.info.run_name in (former, known.get("lorry.run"), f"v{tags[_VERSION_TAG]}")
            if is_ours and run.info.run_name != name:
                self._client.update_run(run_id, name=name)
            elif not wrong:
                return False
        self.set_tags(run_id, wrong)
        return True

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run, values cut to MLflow's 8000 characters."""
        from mlflow.entities import RunTag

        entries = [RunTag(key, value) for key, value in _cut(tags, _MAX_TAG_LENGTH).items()]
        with self._connection.reporting("set tags"):
            for start in range(0, len(entries), _PARAMETERS_PER_BATCH):
                self._client.log_batch(run_id, tags=entries[start : start + _PARAMETERS_PER_BATCH])

    def close_run(self, run_id: str, failed: bool) -> None:
        """End a run, as finished or as failed."""
        # MLflow prints the run's address to stdout, which is reserved for the command's own output.
        silence = contextlib.redirect_stdout(io.StringIO())
        with self._connection.reporting("close the run"), silence:
            idle = int(self._client.get_run(run_id).data.tags.get(_IDLE_TAG, 0))
            end = int(time.time() * 1000) - idle
            self._client.set_terminated(run_id, "FAILED" if failed else "FINISHED", end)

    # Logged models

    def create_model(self, task: str, *, run_id: str, model_type: str, flavor: str) -> str:
        """Announce a model that a run has made, and return its id; ``upload_model`` uploads its files.

        Args:
            task: The task.
            run_id: The run.
            model_type: What MLflow shows as the model's type.
            flavor: The name of the MLflow flavor that loads it.
        """
        from mlflow.entities import LoggedModelOutput

        with self._connection.reporting("create a logged model"):
            experiment_id = self._client.get_run(run_id).info.experiment_id
            tags = {"lorry.task": task, "lorry.flavor": flavor}
            model = self._client.create_logged_model(experiment_id, task, run_id, tags, None, model_type)
            self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        return str(model.model_id)

    def build_model_document(self, model_id: str, run_id: str) -> "Model":
        """Return an ``MLmodel`` document for a model that was announced; flavors are yet to be added."""
        from mlflow.models import Model

        with self._connection.reporting("read a logged model"):
            location = self._client.get_logged_model(model_id).artifact_location
        return Model(artifact_path=location, model_uuid=model_id, model_id=model_id, run_id=run_id)

    def upload_model(self, model_id: str, folder: Path) -> str:
        """Upload a model's files, its ``MLmodel`` last, and return the address that MLflow loads it from."""
        with self._connection.reporting("upload a model"):
            # An MLmodel file makes a folder a model: a kill before it leaves nothing that looks loadable.
            for path in sorted(_list_files(folder), key=lambda path: path.name == _MODEL_DOCUMENT):
                inside = path.parent.relative_to(folder).as_posix()
                with self._connection.transferring(path.stat().st_size):
                    self._client.log_model_artifact(model_id, str(path), None if inside == "." else inside)
            self._client.finalize_logged_model(model_id, "READY")
        return f"models:/{model_id}"


def _list_files(folder: Path) -> list[Path]:
    """Return all files of a folder and of those in it, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _flatten(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flatten(f"{name}.", value)
        elif value is None:
            continue
        elif isinstance(value, list | tuple):
            yield _clean_name(name), json.dumps(value, ensure_ascii=False, default=str)
        else:
            yield _clean_name(name), str(value)


def _clean_name(name: str) -> str:
    return _FORBIDDEN_IN_NAMES.sub("_", name)


def _cut(values: Mapping[str, str], length: int) -> dict[str, str]:
    return {key: str(value)[:length] for key, value in values.items()}
