"""A submission as runs of limited size: those that work on its tasks already, and new ones for the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorry_components.tasks.resolution import ResolvedTask
from lorry_pipelines.cluster.kubeflow import Kubeflow, Run, RunOrder, Version
from lorry_pipelines.cluster.profile import ClusterProfile
from lorry_pipelines.cluster.submission import (
    Submission,
    build_submission,
    find_same_run,
    upload_package,
)
from lorry_pipelines.cluster.submitted_work import (
    SubmittedWork,
    digest_work,
    find_runs,
    read_heads,
    record_work,
)
from lorry_pipelines.compilation import publish_tasks
from lorry_registry.settings import Settings
from lorry_registry.stores import Store


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that works on tasks of a submission.

    Attributes:
        run: The run.
        tasks: Those of the submission's tasks that it works on.
        is_new: Whether this submission started it.
    """

    run: Run
    tasks: tuple[str, ...]
    is_new: bool


def build_submissions(
    tasks: Sequence[ResolvedTask],
    settings: Settings,
    profile: ClusterProfile,
    *,
    revision: str,
    force: bool,
    heads: Mapping[str, str | None],
) -> list[Submission]:
    """Compile tasks into as many runs as the profile's ``tasks_per_run`` asks for.

    They are started side by side, so they share ``tasks_at_once`` among them.

    Raises:
        InvalidTaskError: Pods could not reach something.
    """
    size = profile.tasks_per_run
    parts = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    share = max(1, profile.tasks_at_once // max(1, len(parts)))
    placed = profile.model_copy(update={"tasks_at_once": min(profile.tasks_at_once, share)})
    return [
        build_submission(part, settings, placed, revision=revision, force=force, heads=heads)
        for part in parts
    ]


def start_runs(
    tasks: Sequence[ResolvedTask],
    settings: Settings,
    profile: ClusterProfile,
    kubeflow: Kubeflow,
    store: Store,
    *,
    revision: str,
    force: bool,
) -> list[StartedRun]:
    """Start runs of the tasks that no run works on yet; return all runs that work on the tasks.

    Args:
        tasks: The tasks, with data and bases that pods can reach.
        settings: Where things are, as pods see it.
        profile: How steps are placed, and how many tasks a run has.
        kubeflow: Where the runs are.
        store: The store.
        revision: The commit of the task files; "": they are under no version control.
        force: Whether tasks that are up to date are trained as well.

    Raises:
        ClusterError: Kubeflow cannot be reached, or refuses.
        InvalidTaskError: Pods could not reach something.
        StoreError: The store cannot be read or written.
    """
    experiment = kubeflow.ensure_experiment(settings.kubeflow.experiment)
    works = {task.spec.name: digest_work(task, settings, profile, force=force) for task in tasks}
    heads = read_heads(store, tasks)
    found = find_runs(works, heads, store, kubeflow, experiment, force=force)
    started = [
        StartedRun(run, tuple(task for task, other in found.items() if other == run), is_new=False)
        for run in dict.fromkeys(found.values())
    ]
    rest = {task.spec.name: task for task in tasks if task.spec.name not in found}
    publish_tasks([task.spec for task in rest.values()], settings)
    for submission in build_submissions(
        list(rest.values()), settings, profile, revision=revision, force=force, heads=heads
    ):
        run = find_same_run(submission, kubeflow, experiment)
        is_new = run is None
        if run is None:
            version = upload_package(submission, kubeflow)
            record_work(
                store,
                {
                    name: SubmittedWork(work=works[name], head=heads[name], run=submission.run)
                    for name in submission.tasks
                },
            )
            run = kubeflow.start_run(experiment, order_run(submission, submission.run, version, settings))
        started.append(StartedRun(run, submission.tasks, is_new=is_new))
    return started


def schedule_runs(
    submissions: Sequence[Submission], settings: Settings, kubeflow: Kubeflow, *, cron: str
) -> list[str]:
    """Make the recurring runs of submissions, in place of those that were made before; return their ids.

    The first is called as the experiment, the others ``NAME-2``, ``NAME-3`` and so on.

    Raises:
        ClusterError: Kubeflow cannot be reached, or refuses.
    """
    experiment = kubeflow.ensure_experiment(settings.kubeflow.experiment)
    ids = []
    for number, submission in enumerate(submissions, 1):
        version = upload_package(submission, kubeflow)
        order = order_run(submission, _name_recurring(number, settings), version, settings)
        ids.append(kubeflow.replace_recurring(experiment, order, cron=cron))
    number = len(submissions) + 1
    # Fewer tasks than before need fewer runs.
    while kubeflow.delete_recurring(experiment, _name_recurring(number, settings)):
        number += 1
    return ids


def _name_recurring(number: int, settings: Settings) -> str:
    name = settings.kubeflow.experiment
    return name if number == 1 else f"{name}-{number}"


def order_run(submission: Submission, name: str, version: Version, settings: Settings) -> RunOrder:
    """Return what Kubeflow is asked for to run an uploaded submission."""
    return RunOrder(
        name=name,
        version=version,
        arguments={"force": True} if submission.force else {},
        description=submission.description,
        service_account=settings.kubeflow.service_account,
    )
