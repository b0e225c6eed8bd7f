"""The two places where ``lorry retrain`` trains: this machine's processes, or a Kubeflow cluster."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lorry_pipelines.cli.run import check_tasks, open_run_processes, run_stale
from lorry_pipelines.cli.submit import SubmitJob
from lorry_pipelines.retraining.planning import Expectation, expect_local, expect_on_cluster
from lorry_pipelines.retraining.retraining import FinishedRun, summarize_cut_runs
from lorry_pipelines.retraining.time_limit import TimeLimitError

if TYPE_CHECKING:
    from lorry_components.tasks.resolution import ResolvedTask
    from lorry_pipelines.cluster.profile import ClusterProfile
    from lorry_pipelines.local.launch import RunFolder
    from lorry_pipelines.scheduling import PlannedTask
    from lorry_registry.registry import Registry
    from lorry_registry.settings import Settings


class LocalRunner:
    """Trains in processes of this machine, as ``lorry run`` does.

    Args:
        settings: Where things are.
        registry: Where adapters are.
        files: Task -> its file.
        quiet: Whether nothing is shown.
    """

    place: Literal["local", "kubeflow"] = "local"

    def __init__(
        self, settings: "Settings", registry: "Registry", files: Mapping[str, Path], *, quiet: bool
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._files = files
        self._quiet = quiet

    def expect(self, tasks: "Sequence[ResolvedTask]", *, plans_memory: bool) -> list[Expectation]:
        """Return what tasks took before on this kind of machine."""
        return expect_local([task.spec for task in tasks], self._registry, plans_memory=plans_memory)

    def run(
        self, planned: "Sequence[PlannedTask]", *, prepare: Callable[[str], None], look: Callable[[], None]
    ) -> FinishedRun:
        """Run tasks to their end, or to the time limit."""
        from lorry_pipelines.local.source_revision import find_sources

        started: list[RunFolder] = []

        def begin(folder: "RunFolder") -> None:
            started.append(folder)
            prepare(folder.run)

        names = [plan.spec.name for plan in planned]
        sources = find_sources({name: self._files[name] for name in names})
        with open_run_processes(self._settings, len(planned), runner="local") as step_runner:
            check_tasks(planned, self._settings, force=False)
            try:
                folder, reports = run_stale(
                    planned,
                    self._settings,
                    sources,
                    "",
                    runner="local",
                    force=False,
                    quiet=self._quiet,
                    step_runner=step_runner,
                    prepare=begin,
                    look=look,
                )
            except TimeLimitError:
                return summarize_cut_runs(self._registry, [started[0].run], names)
        return FinishedRun((folder.run,), reports)


class ClusterRunner:
    """Trains on a Kubeflow cluster, as ``lorry submit --wait`` does.

    Args:
        job: Submits.
        registry: Where adapters are.
        profile: How steps are placed.
        revision: The commit of the task files; "": they are under no version control.
        quiet: Whether nothing is shown.
    """

    place: Literal["local", "kubeflow"] = "kubeflow"

    def __init__(
        self,
        job: SubmitJob,
        registry: "Registry",
        profile: "ClusterProfile",
        *,
        revision: str,
        quiet: bool,
    ) -> None:
        self._job = job
        self._registry = registry
        self._profile = profile
        self._revision = revision
        self._quiet = quiet

    def expect(self, tasks: "Sequence[ResolvedTask]", *, plans_memory: bool) -> list[Expectation]:
        """Return what tasks took before on the same kind of node, and cost."""
        return expect_on_cluster(
            [task.spec for task in tasks], self._profile, self._registry, plans_memory=plans_memory
        )

    def run(
        self, planned: "Sequence[PlannedTask]", *, prepare: Callable[[str], None], look: Callable[[], None]
    ) -> FinishedRun:
        """Copy data that pods cannot reach, start one run, and follow it to its end or the time limit."""
        from lorry_pipelines.scheduling import refuse_what_does_not_fit

        specs = [plan.spec for plan in planned]
        refuse_what_does_not_fit(specs)
        tasks = self._job.move_data(specs, self._profile, is_recurring=False)
        started: list[str] = []

        def begin(run: str) -> None:
            started.append(run)
            prepare(run)

        try:
            runs, reports, links = self._job.follow_to_end(
                tasks, self._profile, revision=self._revision, quiet=self._quiet, prepare=begin, look=look
            )
        except TimeLimitError:
            return summarize_cut_runs(self._registry, started, [spec.name for spec in specs])
        return FinishedRun(tuple(one.run.id for one in runs), reports, tuple(links))
