"""A retraining over a runner that trains nothing: leases, what is looked at twice, what is left, and why."""

import signal
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Literal

import pytest

from lorry_components.steps.report.step import TaskReport
from lorry_components.steps.runtime.outcomes import Failure
from lorry_components.tasks.changes import Change
from lorry_components.tasks.inspection import Inspection, State
from lorry_components.tasks.resolution import ResolvedTask, resolve_task
from lorry_components.tasks.staleness import Staleness
from lorry_pipelines.retraining.inspecting import Inspections
from lorry_pipelines.retraining.planning import Expectation
from lorry_pipelines.retraining.results import Retraining, describe_retraining
from lorry_pipelines.retraining.retraining import FinishedRun, Retrainer
from lorry_pipelines.scheduling import PlannedTask
from lorry_registry.cli.termination import Terminated, raise_on_termination
from lorry_registry.errors import NotFoundError, TrackingError
from lorry_registry.leases.process_names import ProcessName
from lorry_registry.leases.work_leases import WorkLease, WorkState, check_fence, is_unfinished, take_lease
from lorry_registry.registry import Registry
from lorry_registry.tasks.task_spec import TaskSpec

RUN = "run-1"


def make_task(name: str) -> ResolvedTask:
    document = {
        "name": name,
        "kind": "text-classification",
        "base": {"model": "./base"},
        "data": {"source": f"{name}.jsonl"},
        "method": {"name": "lora"},
    }
    return resolve_task(TaskSpec.model_validate(document))


def make_inspection(task: str, state: State) -> Inspection:
    is_stale = state == "stale"
    changes = (Change("data", "a -> b"),) if is_stale else ()
    return Inspection(task, state, f"it is {state}", Staleness(is_stale, state), champion=1, changes=changes)


def make_report(task: str, status: Any, step: str = "register") -> TaskReport:
    failure = Failure(error="Killed", message="killed", exit_code=1) if status == "failed" else None
    details: dict[str, dict[str, Any]] = {"register": {"version": 2}} if status != "failed" else {}
    return TaskReport(
        task=task,
        status=status,
        step=step,
        reason=f"the gate says {status}",
        failure=failure,
        details=details,
        seconds={"finetune": 2.0, "register": 1.0},
    )


class Workshop:
    """Tasks in given states, and a runner that does what it is told."""

    place: Literal["local", "kubeflow"] = "local"

    def __init__(self, registry: Registry, **states: State) -> None:
        self.registry = registry
        self.states = states
        self.statuses: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.ran: list[list[str]] = []
        self.finished: list[str] = []
        self.is_cut = False
        self.during: Callable[[], None] = lambda: None
        self.problems: dict[str, Any] = {}

    def build(self, **limits: Any) -> Retrainer:
        return Retrainer(self.registry, self, self.inspect, self.finish, **limits)

    def retrain(self, **limits: Any) -> Retraining:
        retrainer = self.build(**limits)
        return retrainer.retrain(retrainer.plan(plans_memory=False))

    def inspect(self, names: Sequence[str] | None) -> tuple[dict[str, ResolvedTask], Inspections]:
        wanted = [name for name in self.states if names is None or name in names]
        found = {name: make_inspection(name, self.states[name]) for name in wanted}
        return {name: make_task(name) for name in wanted}, Inspections(found, dict(self.problems))

    def expect(self, tasks: Sequence[ResolvedTask], *, plans_memory: bool) -> list[Expectation]:
        assert not plans_memory
        return [Expectation(task.spec.name, self.seconds.get(task.spec.name)) for task in tasks]

    def run(
        self, planned: Sequence[PlannedTask], *, prepare: Callable[[str], None], look: Callable[[], None]
    ) -> FinishedRun:
        names = [plan.spec.name for plan in planned]
        self.ran.append(names)
        prepare(RUN)
        look()
        self.during()
        reports = {name: make_report(name, self.statuses.get(name, "promoted")) for name in names}
        return FinishedRun((RUN,), reports, is_cut=self.is_cut)

    def finish(self, task: str) -> Sequence[str]:
        self.finished.append(task)
        return ["v1 was added to MLflow"]

    def leave_half_done(self, task: str) -> None:
        """Leave the lease of somebody who was killed elsewhere, a while ago."""
        assert isinstance(take_lease(self.registry.store, task), WorkLease)
        now = self.registry.store.read_clock()
        state = WorkState(
            token=1,
            process=ProcessName(host="elsewhere", number=1),
            since=now - timedelta(hours=1),
            until=now - timedelta(minutes=1),
        )
        self.registry.store.replace(f"work/{task}.json", state.model_dump_json().encode())


def list_outcomes(retraining: Retraining) -> dict[str, str]:
    return {task.task: task.outcome for task in retraining.tasks}


def test_only_what_is_stale_is_run(registry: Registry) -> None:
    shop = Workshop(registry, a="stale", b="fresh", c="stale", d="rolled back")
    shop.statuses = {"c": "challenger"}
    done = shop.retrain()
    assert shop.ran == [["a", "c"]]
    assert list_outcomes(done) == {"a": "promoted", "b": "fresh", "c": "refused", "d": "fresh"}
    first = done.tasks[0]
    assert (first.old_version, first.new_version, first.reasons) == (1, 2, ("data: a -> b",))
    assert (first.decision, first.seconds) == ("the gate says promoted", 3.0)
    assert done.tasks[3].reasons == ("it is rolled back",)
    assert describe_retraining(done)["tasks"][2]["outcome"] == "refused"
    # All leases were given back.
    assert not any(is_unfinished(registry.store, name) for name in "abcd")


def test_what_somebody_else_retrains_is_left(registry: Registry) -> None:
    shop = Workshop(registry, a="stale", b="stale")
    lease = take_lease(registry.store, "a")
    assert isinstance(lease, WorkLease)
    done = shop.retrain()
    assert shop.ran == [["b"]]
    assert list_outcomes(done) == {"a": "left", "b": "promoted"}
    assert done.left[0].decision.startswith("it is being retrained already, by process ")
    described = describe_retraining(done)
    assert (described["left"], described["outcomes"]) == (["a"], {"left": 1, "promoted": 1})


def test_what_somebody_else_did_until_a_moment_ago_is_not_done_again(registry: Registry) -> None:
    shop = Workshop(registry, a="stale")
    retrainer = shop.build()
    plan = retrainer.plan(plans_memory=False)
    shop.states["a"] = "fresh"
    done = retrainer.retrain(plan)
    assert (shop.ran, list_outcomes(done)) == ([], {"a": "fresh"})


def test_what_became_unusable_meanwhile_is_left(registry: Registry) -> None:
    shop = Workshop(registry, a="stale", b="stale")
    retrainer = shop.build()
    plan = retrainer.plan(plans_memory=False)
    del shop.states["a"]
    shop.problems["a"] = NotFoundError("its data are gone")
    done = retrainer.retrain(plan)
    assert list_outcomes(done) == {"a": "left", "b": "promoted"}
    assert done.left[0].decision == "it cannot be retrained: its data are gone"
    assert list(retrainer.inspections.problems) == ["a"]


def test_a_run_has_the_fence_of_its_lease(registry: Registry) -> None:
    shop = Workshop(registry, a="stale")
    shop.during = lambda: check_fence(registry.store, RUN, "a")
    shop.retrain()
    assert registry.store.read(f"runs/{RUN}/fences/a.json") is not None


def test_what_a_killed_one_left_is_finished(registry: Registry) -> None:
    shop = Workshop(registry, a="fresh", b="fresh", c="stale")
    shop.leave_half_done("a")
    shop.leave_half_done("c")
    done = shop.retrain()
    assert shop.finished == ["c", "a"]
    assert list_outcomes(done) == {"a": "finished", "b": "fresh", "c": "promoted"}
    assert done.tasks[0].decision == "v1 was added to MLflow"
    # And not again.
    shop.states["c"] = "fresh"
    assert list_outcomes(shop.retrain())["a"] == "fresh"


def test_an_mlflow_that_is_away_fails_nothing(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Workshop(registry, a="fresh")
    shop.leave_half_done("a")

    def fail(_: str) -> Sequence[str]:
        raise TrackingError("it does not answer")

    monkeypatch.setattr(shop, "finish", fail)
    (task,) = shop.retrain().tasks
    assert "could not be brought up to date: it does not answer" in task.decision


def test_limits_leave_tasks_for_the_next_time(registry: Registry) -> None:
    shop = Workshop(registry, a="stale", b="stale", c="stale")
    shop.seconds = {"a": 600.0, "b": 60.0, "c": 30.0}
    done = shop.retrain(time_limit=120.0)
    assert shop.ran == [["b", "c"]]
    assert [task.task for task in done.left] == ["a"]
    assert "it took 10.0 min before" in done.left[0].decision


def test_what_was_asked_for_is_begun_with(registry: Registry) -> None:
    shop = Workshop(registry, a="stale", b="stale", c="fresh")
    shop.seconds = {"a": 60.0}
    shop.retrain(most=1, first={"b": ["1"], "c": ["4"]})
    assert shop.ran == [["b"]]


def test_a_run_that_the_time_limit_ended_leaves_what_had_not_ended(registry: Registry) -> None:
    shop = Workshop(registry, a="stale", b="stale")
    shop.statuses, shop.is_cut = {"b": "failed"}, True
    done = shop.retrain()
    assert list_outcomes(done) == {"a": "promoted", "b": "left"}
    assert done.left[0].decision.startswith("the time limit was reached in register")
    assert is_unfinished(registry.store, "b")
    shop.is_cut = False
    assert list_outcomes(shop.retrain())["b"] == "failed"


def test_leases_are_given_back_when_the_run_cannot_start(registry: Registry) -> None:
    shop = Workshop(registry, a="stale")

    def fail() -> None:
        raise NotFoundError("no such thing")

    shop.during = fail
    with pytest.raises(NotFoundError):
        shop.retrain()
    assert is_unfinished(registry.store, "a")
    assert isinstance(take_lease(registry.store, "a"), WorkLease)


def test_a_task_whose_inputs_drifted_waits_for_rows_with_labels(registry: Registry) -> None:
    shop = Workshop(registry, a="drifted", b="stale")
    done = shop.retrain()
    assert shop.ran == [["b"]]
    assert list_outcomes(done) == {"a": "left", "b": "promoted"}
    assert done.left[0].decision == "it is drifted"
    # Another time there is nothing to do either.
    assert describe_retraining(done)["left"] == []


def test_leases_are_given_back_when_the_process_is_asked_to_end(registry: Registry) -> None:
    shop = Workshop(registry, a="stale")
    former = signal.getsignal(signal.SIGTERM)
    shop.during = lambda: signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Terminated), raise_on_termination():
        shop.retrain()
    assert signal.getsignal(signal.SIGTERM) == former
    assert is_unfinished(registry.store, "a")
    assert isinstance(take_lease(registry.store, "a"), WorkLease)
