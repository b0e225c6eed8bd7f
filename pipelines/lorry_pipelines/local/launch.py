"""Runs tasks on this machine and watches them."""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lorry_components.models.bases import find_base_folder
from lorry_components.processors import count_processors, limit_threads
from lorry_components.steps.report.step import RunReport, report_run
from lorry_components.steps.runtime.build_facts import (
    BUILDER_VARIABLE,
    CONTAINER_BUILDER,
    IMAGE_DIGEST_VARIABLE,
    IMAGE_VARIABLE,
    SOURCES_VARIABLE,
    write_sources,
)
from lorry_components.steps.runtime.outcomes import RunRecord
from lorry_components.steps.runtime.step_context import PROGRESS_VARIABLE, TRACKING_VARIABLE
from lorry_components.watchdog import end_group, start_watched
from lorry_pipelines.compilation import compile_pipeline, publish_tasks, withhold_secret
from lorry_pipelines.local.containers import Mount, remove_containers
from lorry_pipelines.local.runner_process import LocalRun
from lorry_pipelines.local.step_runner import TASKS_AT_A_TIME, StepsRun
from lorry_registry.errors import StoreError, TrackingError
from lorry_registry.files.atomic_write import write_whole_text
from lorry_registry.ledger.registry_identity import read_id
from lorry_registry.records.provenance import SourceRevision
from lorry_registry.settings import Settings
from lorry_registry.signing.keys import PASSWORD_VARIABLE
from lorry_registry.stores import open_store
from lorry_registry.tasks.task_references import TaskReference
from lorry_registry.tasks.task_spec import TaskSpec
from lorry_registry.text.sqlite_addresses import find_database_file

_POLL_SECONDS = 0.2
# A look at a run takes a request for each step of each task, if the store is not on this machine.
_REMOTE_WATCH_SECONDS = 3.0
_PACKAGES = Path("/opt/lorry/packages")
_PASSED_ON = ("AWS_", "HF_", "MLFLOW_", "OMP_", "OPENBLAS_", "RAYON_", PASSWORD_VARIABLE)


@contextlib.contextmanager
def report_disk(home: Path) -> Iterator[None]:
    """Turn the failure to write one of the run's files into an error that says so.

    Raises:
        StoreError: A file of the run cannot be written.
    """
    try:
        yield
    except BrokenPipeError:
        # Nothing reads the display any more.
        raise
    except OSError as error:
        raise StoreError(
            f"cannot be written: {error.strerror or error}",
            where=str(error.filename or home),
            todo="check that the disk has space and that this user may write there, or set LORRY_HOME",
        ) from error


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of a run.

    Attributes:
        run: The run's id: its start in UTC, and a random number, for others may start in the same second.
        path: Where they are.
    """

    run: str
    path: Path

    @classmethod
    def create(cls, runs: Path) -> "RunFolder":
        """Make the folder of a new run."""
        run = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(8)}"
        path = runs / run
        (path / "progress").mkdir(parents=True)
        return cls(run, path)

    @property
    def log(self) -> Path:
        """The output of the steps and of Kubeflow's runner."""
        return self.path / "pipeline.log"

    @property
    def progress(self) -> Path:
        """Where steps write their progress."""
        return self.path / "progress"

    def has_started(self, task: str) -> bool:
        """Return whether a step of a task has started."""
        return (self.progress / f"{task}.json").exists()

    @property
    def work(self) -> Path:
        """Where steps put their outputs."""
        return self.path / "work"


def run_pipeline(
    specs: Sequence[TaskSpec],
    folder: RunFolder,
    *,
    settings: Settings,
    runner: str,
    force: bool,
    environment: Mapping[str, str],
    watch: Callable[[], None],
    sources: Mapping[str, SourceRevision] | None = None,
    image_digest: str = "",
    step_runner: subprocess.Popen[bytes] | None = None,
) -> RunReport:
    """Run tasks on this machine, and return their outcome.

    Args:
        specs: The tasks, in the order in which they are started.
        folder: The run's files.
        settings: Where things are.
        runner: ``local``: steps begin as copies of a process with libraries loaded. ``subprocess`` or
            ``docker``: Kubeflow's local runner runs the compiled graph.
        force: Whether tasks that are up to date are trained as well.
        environment: The environment that the run's processes inherit.
        watch: Called again and again during the run, and once at its end.
        sources: The commits that the tasks' files were read at, for the adapters' provenance.
        image_digest: The digest of the image of steps in containers, for the same.
        step_runner: What :func:`open_step_runner` started; for ``local`` alone.

    Raises:
        KeyboardInterrupt: The run was interrupted; its processes are ended first.
    """
    tasks = publish_tasks(specs, settings)
    variables = {
        # What the user's environment says of the sources counts for more than what was found out.
        **({} if environment.get(SOURCES_VARIABLE) else _list_build_variables(sources)),
        PROGRESS_VARIABLE: str(folder.progress),
    }
    if step_runner is not None:
        process = _hand_over(step_runner, tasks, folder, settings, force=force, variables=variables)
    else:
        inherited = {**build_environment(environment, settings, len(specs)), **variables}
        described = _describe_pipeline(
            specs, folder, settings, runner=runner, force=force, sources=sources, image_digest=image_digest
        )
        command = [sys.executable, "-P", "-m", "lorry_pipelines.local.runner_process", str(described)]
        with folder.log.open("wb") as log:
            process = start_watched(command, log=log, environment=inherited)
    try:
        _run_to_end(process, watch, seconds=_choose_watch_seconds(settings))
    finally:
        if runner == "docker":
            remove_containers(folder.run)
    store = open_store(settings.store, settings.s3)
    report = report_run(RunRecord(store, folder.run), [spec.name for spec in specs], store)
    _clean_up(report, folder, settings)
    return report


@contextlib.contextmanager
def open_step_runner(
    settings: Settings, environment: Mapping[str, str], tasks: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process that runs steps, which imports libraries until it is given what to run.

    Args:
        settings: Where things are.
        environment: The environment that it inherits.
        tasks: How many tasks the run has.
    """
    variables = build_environment(environment, settings, tasks)
    # A pool of threads for numpy, which no step needs, would keep steps from being copies of a process.
    variables["OPENBLAS_NUM_THREADS"] = "1"
    command = [sys.executable, "-P", "-m", "lorry_pipelines.local.step_runner"]
    with Path(os.devnull).open("wb") as log:
        process = start_watched(command, log=log, environment=variables)
    try:
        yield process
    finally:
        end_group(process)


def _hand_over(
    process: subprocess.Popen[bytes],
    tasks: Sequence[TaskReference],
    folder: RunFolder,
    settings: Settings,
    *,
    force: bool,
    variables: dict[str, str],
) -> subprocess.Popen[bytes]:
    """Tell the process that runs steps what to run, and return it."""
    run = StepsRun(
        tasks=tuple(map(str, tasks)),
        run=folder.run,
        store=settings.store,
        tracking_uri=withhold_secret(settings.tracking_uri),
        checkpoints=settings.checkpoint_address,
        force=force,
        root=folder.work,
        log=folder.log,
        variables=variables,
    )
    folder.log.touch()
    assert process.stdin is not None
    # If it has ended, that is seen at once.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(run.model_dump_json().encode() + b"\n")
        process.stdin.flush()
    return process


def _describe_pipeline(
    specs: Sequence[TaskSpec],
    folder: RunFolder,
    settings: Settings,
    *,
    runner: str,
    force: bool,
    sources: Mapping[str, SourceRevision] | None,
    image_digest: str,
) -> Path:
    """Compile the graph, and return the file that says how Kubeflow's local runner is to run it."""
    pipeline = folder.path / "pipeline.yaml"
    compile_pipeline(specs, pipeline, settings=settings)
    described = folder.path / "run.json"
    is_docker = runner == "docker"
    run = LocalRun(
        pipeline=pipeline,
        arguments={
            "run": folder.run,
            "store": settings.store,
            "tracking_uri": withhold_secret(settings.tracking_uri),
            "checkpoints": settings.checkpoint_address,
            "force": force,
        },
        root=folder.work,
        runner=runner,
        mounts=list_mounts(specs, settings) if is_docker else (),
        environment=_list_container_variables(settings, folder, sources, image_digest) if is_docker else {},
        passed_on=_PASSED_ON if is_docker else (),
        network=_choose_network(specs, settings),
    )
    write_whole_text(described, run.model_dump_json(indent=2))
    return described


def list_mounts(specs: Sequence[TaskSpec], settings: Settings) -> tuple[Mount, ...]:
    """Return the folders of this machine that steps in containers need, each under its own path.

    A base inside an importable package is put on the container's import path instead.
    """
    writable = {settings.home}
    if not settings.checkpoints.is_relative_to(settings.home):
        writable.add(settings.checkpoints)
    store = open_store(settings.store, settings.s3).find_path("adapters")
    if store is not None:
        writable.add(store.parent)
    database = find_database_file(settings.tracking_uri)
    if database is not None and not database.is_relative_to(settings.home):
        # Its journal and MLflow's artifacts lie beside it.
        writable.add(database.parent)
    mounts = {path: Mount(source=path, target=path, is_read_only=False) for path in writable}
    for path in writable:
        path.mkdir(parents=True, exist_ok=True)
    for path in settings.signing.files:
        mounts.setdefault(path, Mount(source=path.resolve(), target=path, is_read_only=True))
    for spec in specs:
        if spec.data.is_local:
            source = Path(spec.data.source)
            folder = source if source.is_dir() else source.parent
            mounts.setdefault(folder, Mount(source=folder, target=folder, is_read_only=True))
        if spec.base.is_folder:
            base = Path(spec.base.model)
            mounts.setdefault(base, Mount(source=base, target=base, is_read_only=True))
        elif spec.base.is_named and spec.base.is_here:
            bases = find_base_folder(spec.base).parent
            mounts.setdefault(bases, Mount(source=bases, target=bases, is_read_only=True))
        elif spec.base.is_package:
            package = _find_package(spec)
            mounts.setdefault(
                package, Mount(source=package, target=_PACKAGES / package.name, is_read_only=True)
            )
    return tuple(mounts.values())


def _find_package(spec: TaskSpec) -> Path:
    folder = find_base_folder(spec.base)
    inner = spec.base.model.partition("/")[2]
    depth = len([part for part in inner.split("/") if part]) + spec.base.model.partition("/")[0].count(".")
    return folder.parents[depth - 1] if depth else folder


def _list_container_variables(
    settings: Settings,
    folder: RunFolder,
    sources: Mapping[str, SourceRevision] | None,
    image_digest: str,
) -> dict[str, str]:
    return {
        **settings.list_step_variables(),
        **_list_build_variables(sources),
        IMAGE_VARIABLE: settings.image,
        IMAGE_DIGEST_VARIABLE: image_digest,
        BUILDER_VARIABLE: CONTAINER_BUILDER,
        "LORRY_HOME": str(settings.home),
        PROGRESS_VARIABLE: str(folder.progress),
        "PYTHONPATH": str(_PACKAGES),
    }


def _list_build_variables(sources: Mapping[str, SourceRevision] | None) -> dict[str, str]:
    return {SOURCES_VARIABLE: write_sources(sources)} if sources else {}


def _choose_network(specs: Sequence[TaskSpec], settings: Settings) -> str:
    """Return the network for containers: none if everything that steps use is on this machine's disk.

    Otherwise the host's own, so that a server on this machine has the same address inside and outside.
    """
    has_local_store = open_store(settings.store, settings.s3).find_path("adapters") is not None
    if "://" in settings.checkpoint_address:
        return "host"
    is_local = all(spec.data.is_local and spec.base.is_here for spec in specs)
    return "none" if is_local and has_local_store and find_database_file(settings.tracking_uri) else "host"


def _choose_watch_seconds(settings: Settings) -> float:
    """Return the seconds from one look at the run to the next: none for a store on this machine's disk."""
    is_local = open_store(settings.store, settings.s3).find_path("adapters") is not None
    return 0.0 if is_local else _REMOTE_WATCH_SECONDS


def _run_to_end(process: subprocess.Popen[bytes], watch: Callable[[], None], *, seconds: float) -> None:
    try:
        due = 0.0
        while process.poll() is None:
            if time.monotonic() >= due:
                watch()
                due = time.monotonic() + seconds
            time.sleep(_POLL_SECONDS)
    finally:
        end_group(process)
        watch()


def build_environment(inherited: Mapping[str, str], settings: Settings, tasks: int) -> dict[str, str]:
    """Return the environment of the processes of a run, but for what is known of this very run.

    Args:
        inherited: The environment of this process.
        settings: Where things are.
        tasks: How many tasks the run has.
    """
    withheld = withhold_secret(settings.tracking_uri) != settings.tracking_uri
    environment = {
        "PYTHONUNBUFFERED": "1",
        **inherited,
        # The only way for a password to reach the steps: no file of a run holds one.
        **({TRACKING_VARIABLE: settings.tracking_uri} if withheld else {}),
        **settings.list_step_variables(),
        "LORRY_HOME": str(settings.home),
        # Files of the working folder, such as a datasets.py beside the table, are no libraries.
        "PYTHONSAFEPATH": "1",
    }
    # Two trainings with one thread each are faster than one after the other with two threads.
    limit_threads(environment, count_processors(inherited), processes=min(TASKS_AT_A_TIME, tasks))
    return environment


def _clean_up(report: RunReport, folder: RunFolder, settings: Settings) -> None:
    """Remove what finished tasks no longer need; files of failed ones are kept, to look at and to resume."""
    for task in report.tasks:
        if task.status in ("promoted", "challenger", "unchanged"):
            for checkpoints in settings.checkpoints.glob(f"{task.task}-" + "?" * 16):
                shutil.rmtree(checkpoints)
    if not report.failed:
        shutil.rmtree(folder.work, ignore_errors=True)


def check_places(settings: Settings, tasks: Sequence[str]) -> None:
    """Check that the store and MLflow can be written, and signed for, before anything is spent.

    Args:
        settings: Where they are.
        tasks: The tasks that are about to be trained.

    Raises:
        StoreError: The store cannot be written.
        UsageError: What is registered cannot be signed as it has to be.
        TrackingError: MLflow cannot be reached, or experiments of the tasks' names are someone else's.
    """
    from lorry_registry.mlflow.index import MlflowIndex
    from lorry_registry.mlflow.network import BRIEF

    settings.signing.check_ready()
    store = open_store(settings.store, settings.s3)
    store.check_writable()
    if "://" in settings.checkpoint_address:
        open_store(settings.checkpoint_address, settings.s3).check_writable()
    index = MlflowIndex(settings.tracking_uri, limits=BRIEF)
    index.check_reachable()
    index.check_place()
    registry_id = read_id(store)
    refusals: list[TrackingError] = []
    for task in tasks:
        try:
            index.check_experiment(task, registry_id)
        except TrackingError as error:
            refusals.append(error)
    if len(refusals) > 1:
        raise TrackingError(
            "\n".join(f"{error.what}\n  -> {error.todo}" for error in refusals), where=index.address
        )
    if refusals:
        raise refusals[0]
