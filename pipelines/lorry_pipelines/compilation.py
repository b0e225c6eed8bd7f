"""From tasks to a compiled pipeline file."""

import functools
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from lorry_components.process_setup import skip_iri_grammar
from lorry_pipelines.cluster.base_mounts import place_bases
from lorry_pipelines.cluster.profile import ClusterProfile
from lorry_pipelines.cluster.reachability import check_reachable
from lorry_pipelines.step_images import choose_images
from lorry_registry.errors import StoreError, UsageError
from lorry_registry.settings import IN_STORE, Settings
from lorry_registry.stores import open_store
from lorry_registry.stores.concurrency import map_concurrent
from lorry_registry.tasks.task_references import TaskReference, refer_to_task, store_task
from lorry_registry.tasks.task_spec import ResourcesSpec, TaskSpec
from lorry_registry.text.addresses import has_secret, hide_secrets
from lorry_registry.text.sizes import KIB, format_in

# Linux limits one argument of a process to 128 KiB; the other parameters of a step travel in the same.
_MAX_ARGUMENT = 120 * KIB


def compile_pipeline(
    specs: Sequence[TaskSpec], target: Path, *, settings: Settings, profile: ClusterProfile | None = None
) -> None:
    """Compile the graph into a YAML file.

    The file refers to the tasks; :func:`publish_tasks` keeps what it refers to.

    Anyone may read the file. An address of MLflow that holds a password is left out of it: steps then take
    MLFLOW_TRACKING_URI from their environment.

    Args:
        specs: The tasks that are the default parameter; none: they are given when a run is started.
        target: The file; its name ends in ``.yaml``. It appears whole or not at all.
        settings: Where the images, the store and MLflow are by default.
        profile: How steps are placed on a cluster; None: the file is for this machine.

    Raises:
        InvalidTaskError: A profile is given, and pods could not reach something; all such things are listed.
        StoreError: The file cannot be written.
        UsageError: The address of the store holds a password, or there are more tasks than one run takes.
    """
    _refuse_secrets(settings)
    _refuse_too_many(specs, profile)
    if profile is not None:
        check_reachable(specs, settings, profile)
        profile = place_bases(profile, settings)
    skip_iri_grammar()
    from kfp import compiler

    from lorry_pipelines.graph import TaskGroup, build_pipeline, group_tasks

    groups = group_tasks(specs) or [TaskGroup(ResourcesSpec(), ())]
    with warnings.catch_warnings():
        # kfp uses deprecated parts of protobuf and typing, which cannot be fixed here.
        warnings.simplefilter("ignore")
        pipeline = build_pipeline(
            groups,
            images=choose_images(settings, profile),
            store=settings.store,
            tracking_uri=withhold_secret(settings.tracking_uri),
            checkpoints=_choose_checkpoints(settings),
            profile=profile,
        )
        try:
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as scratch:
                # The compiler insists on the ending, and writes a file that a reader may see half of.
                compiled = Path(scratch) / "pipeline.yaml"
                compiler.Compiler().compile(pipeline, str(compiled))
                compiled.replace(target)
        except OSError as error:
            raise StoreError(
                f"cannot be written: {error.strerror or error}",
                where=str(target),
                todo="name a file in a folder that exists, can be written and has space",
            ) from error


def publish_tasks(specs: Sequence[TaskSpec], settings: Settings) -> list[TaskReference]:
    """Keep the documents of tasks in the store, where the steps of a compiled pipeline read them.

    Raises:
        StoreError: The store cannot be written.
        UsageError: The address of the store holds a password.
    """
    _refuse_secrets(settings)
    store = open_store(settings.store, settings.s3)
    return list(map_concurrent(functools.partial(store_task, store), specs, store.concurrency))


def withhold_secret(address: str) -> str:
    """Return an address that may be written down; an empty string if it holds a password."""
    return "" if has_secret(address) else address


def _choose_checkpoints(settings: Settings) -> str:
    """Return where a step on any machine finds checkpoints; a folder of this machine is no such place."""
    if settings.has_remote_checkpoints:
        return settings.checkpoint_address
    return IN_STORE if "://" in settings.store else ""


def _refuse_too_many(specs: Sequence[TaskSpec], profile: ClusterProfile | None) -> None:
    """Refuse what would break the run, or each step that is given all tasks, before anything is started."""
    if profile is not None and len(specs) > profile.tasks_per_run:
        raise UsageError(
            f"{len(specs)} tasks are too many for one run: the profile's tasks_per_run is "
            f"{profile.tasks_per_run}, since Argo keeps the state of a run in one object of limited size",
            where="tasks",
            todo="use lorry submit, which starts several runs, or compile several files",
        )
    size = len(json.dumps([str(refer_to_task(spec)) for spec in specs]))
    if size > _MAX_ARGUMENT:
        raise UsageError(
            f"{len(specs)} tasks are too many for one run: their references take {format_in(size, 'KiB')}, "
            f"and a process takes no more than {format_in(_MAX_ARGUMENT, 'KiB')} as an argument",
            where="tasks",
            todo=f"start several runs of up to {len(specs) * _MAX_ARGUMENT // size} tasks",
        )


def _refuse_secrets(settings: Settings) -> None:
    if has_secret(settings.store):
        raise UsageError(
            f"{hide_secrets(settings.store)} holds a password, and anyone may read a pipeline",
            where="LORRY_STORE",
            todo="leave it out of the address, and give steps AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY in their environment: on a cluster from a Kubernetes secret",
        )
