"""The work that was submitted for each task, so that a task whose run goes on is not started a second time.

While a run goes on, some of its tasks end and are stale no longer: the same command then asks for fewer
tasks, and the digest of these names another run. So what each task was submitted for is kept, with the run's
name. A run that succeeded counts as long as the task's ledger is as it was at the submission: after a
rollback, for example, the gate has to judge the same adapter again.

Layout in the store: ``submitted/<task>.json``.
"""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from lorry_components.tasks.resolution import ResolvedTask
from lorry_pipelines.cluster.kubeflow import Kubeflow, Run
from lorry_pipelines.cluster.profile import ClusterProfile
from lorry_pipelines.cluster.submission import choose_run, describe_inputs
from lorry_pipelines.step_images import choose_images
from lorry_registry.files.digests import canonical_json, digest_document
from lorry_registry.ledger.ledger import Ledger
from lorry_registry.settings import Settings
from lorry_registry.stores import Store
from lorry_registry.stores.concurrency import map_concurrent
from lorry_registry.text.addresses import hide_secrets


class SubmittedWork(BaseModel):
    """What a task was last submitted for.

    Attributes:
        work: The digest of everything that the run would train it from, and how.
        head: The digest of its head in the ledger at that time; None: it had no version.
        run: The name of the run.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    work: str
    head: str | None
    run: str


def digest_work(task: ResolvedTask, settings: Settings, profile: ClusterProfile, *, force: bool) -> str:
    """Return the digest of what a run would do for a task."""
    images = choose_images(settings, profile)
    return digest_document(
        {
            "inputs": describe_inputs(task),
            "images": [image.name for image in images],
            "profile": profile.model_dump(mode="json"),
            "tracking_uri": hide_secrets(settings.tracking_uri),
            "force": force,
        }
    )


def read_heads(store: Store, tasks: Sequence[ResolvedTask]) -> dict[str, str | None]:
    """Return task -> the digest of its head in the ledger.

    Raises:
        StoreError: The store cannot be read.
    """
    names, ledger = [task.spec.name for task in tasks], Ledger(store)
    return dict(zip(names, map_concurrent(ledger.digest_head, names, store.concurrency), strict=True))


def record_work(store: Store, works: Mapping[str, SubmittedWork]) -> None:
    """Keep what runs are started for, before they are started.

    Args:
        store: The store.
        works: Task -> its work.

    Raises:
        StoreError: The store cannot be written.
    """

    def write(task: str) -> None:
        document = works[task].model_dump(mode="json")
        # Of two submissions of the task at the same moment, the run of either is as good to be found.
        store.overwrite(_locate(task), canonical_json(document))

    for _ in map_concurrent(write, works, store.concurrency):
        pass


def find_runs(
    works: Mapping[str, str],
    heads: Mapping[str, str | None],
    store: Store,
    kubeflow: Kubeflow,
    experiment: str,
    *,
    force: bool,
) -> dict[str, Run]:
    """Return the run that works on each task already, or that did its work; tasks without one are left out.

    Args:
        works: Task -> the digest of its work.
        heads: Task -> the digest of its head in the ledger.
        store: The store.
        kubeflow: Where runs are.
        experiment: The id of their experiment.
        force: Whether a run that succeeded does not count.

    Raises:
        ClusterError: Kubeflow cannot be reached.
        StoreError: The store cannot be read.
    """
    kept = dict(
        zip(works, map_concurrent(lambda task: _read(store, task), works, store.concurrency), strict=True)
    )
    same = {task: known for task, known in kept.items() if known and known.work == works[task]}
    names = dict.fromkeys(known.run for known in same.values())
    runs = {name: kubeflow.list_runs(experiment, name) for name in names}
    chosen = {
        task: choose_run(runs[known.run], force=force or known.head != heads[task])
        for task, known in same.items()
    }
    return {task: run for task, run in chosen.items() if run is not None}


def _read(store: Store, task: str) -> SubmittedWork | None:
    document = store.read(_locate(task))
    if document is None:
        return None
    try:
        return SubmittedWork.model_validate_json(document.content)
    except ValidationError:
        # It only saves a second run, and the next submission writes it anew.
        return None


def _locate(task: str) -> str:
    return f"submitted/{task}.json"
