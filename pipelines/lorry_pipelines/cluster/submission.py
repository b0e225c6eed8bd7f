"""A submission: what a run would do, named by its digest, so that the same work is never started twice."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorry_components.tasks.resolution import ResolvedTask
from lorry_pipelines.cluster.kubeflow import SUCCEEDED, Kubeflow, Run, Version
from lorry_pipelines.cluster.profile import ClusterProfile
from lorry_pipelines.compilation import compile_pipeline
from lorry_pipelines.graph import PIPELINE_NAME
from lorry_registry.errors import LorryError
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.files.digests import digest_document, digest_file
from lorry_registry.mlflow.kubeflow_pages import RUN_TAG
from lorry_registry.mlflow.page_addresses import is_server
from lorry_registry.settings import Settings
from lorry_registry.tasks.task_references import refer_to_task
from lorry_registry.text.addresses import hide_secrets

_NAME_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Submission:
    """What is submitted.

    Attributes:
        tasks: The names of its tasks.
        package: The compiled pipeline, as text.
        version: The name of the pipeline's version: the revision of its source, and the package's digest.
        run: The name of the run: the digest of what it would do.
        force: Whether tasks that are up to date are trained as well.
        mlflow: The address of MLflow, without secrets; empty: it is no server.
    """

    tasks: tuple[str, ...]
    package: str
    version: str
    run: str
    force: bool
    mlflow: str = ""

    @property
    def description(self) -> str:
        """Its tasks, and where MLflow shows them, for Kubeflow's pages."""
        listed = ", ".join(self.tasks[:20])
        more = len(self.tasks) - 20
        tasks = f"{listed} and {more} more" if more > 0 else listed
        return f"{tasks}\nMLflow: {self.mlflow}, runs tagged {RUN_TAG}" if self.mlflow else tasks


def build_submission(
    tasks: Sequence[ResolvedTask],
    settings: Settings,
    profile: ClusterProfile,
    *,
    revision: str,
    force: bool,
    heads: Mapping[str, str | None],
) -> Submission:
    """Compile tasks for a cluster, and name the run by what it would do.

    Args:
        tasks: The tasks, with data and bases that pods can reach.
        settings: Where things are, as pods see it.
        profile: How steps are placed.
        revision: The revision of the task files' source; empty if they are under no version control.
        force: Whether tasks that are up to date are trained as well.
        heads: Task -> the digest of its head in the ledger. After a rollback, for example, there is work
            although the run of the same inputs succeeded.

    Raises:
        InvalidTaskError: Pods could not reach something.
    """
    specs = [task.spec for task in tasks]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compile_pipeline(specs, path, settings=settings, profile=profile)
        package, digest = path.read_text("utf-8"), digest_file(path)
    work = {
        "package": digest,
        "tasks": {task.spec.name: describe_inputs(task) for task in tasks},
        "heads": {spec.name: heads[spec.name] for spec in specs},
        "force": force,
    }
    return Submission(
        tasks=tuple(spec.name for spec in specs),
        package=package,
        version="-".join(part for part in (revision[:12], _shorten(digest)) if part),
        run=f"{PIPELINE_NAME}-{_shorten(digest_document(work))}",
        force=force,
        mlflow=hide_secrets(settings.tracking_uri) if is_server(settings.tracking_uri) else "",
    )


def find_same_run(submission: Submission, kubeflow: Kubeflow, experiment: str) -> Run | None:
    """Return the run that does the same already or did it: one that failed or was cancelled does not."""
    return choose_run(kubeflow.list_runs(experiment, submission.run), force=submission.force)


def choose_run(runs: Sequence[Run], *, force: bool) -> Run | None:
    """Return the run of a name that makes another one unnecessary; None: none does.

    A forced run trains what is up to date, so one that succeeded does not stop the next.
    """
    active = [run for run in runs if not run.has_ended]
    succeeded = [] if force else [run for run in runs if run.state == SUCCEEDED]
    return next(iter([*active, *succeeded]), None)


def upload_package(submission: Submission, kubeflow: Kubeflow) -> Version:
    """Upload the compiled pipeline as a version, unless it is there.

    Raises:
        ClusterError: Kubeflow cannot be reached, or refuses it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        write_whole_text(path, submission.package)
        return kubeflow.upload_version(PIPELINE_NAME, submission.version, path, submission.description)


def describe_inputs(task: ResolvedTask) -> dict[str, str]:
    """Return the digests of what a task is trained from, as far as they can be known on this machine."""
    return {
        "task": refer_to_task(task.spec).digest,
        "data": _describe(lambda: task.source_digest),
        "base": _describe(lambda: task.base_identity.fingerprint),
    }


def _describe(read: Callable[[], str]) -> str:
    try:
        return read()
    except LorryError as error:
        # The pods may reach what this machine cannot; the first step says so if they do not.
        return f"unknown: {error.what}"


def _shorten(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_NAME_DIGITS]
