"""The names of figures in MLflow, by which its pages put curves before single values."""

from collections.abc import Callable
from typing import Any

from lorry_registry.manifest import Baseline, ProbeComparison
from lorry_registry.mlflow.views import describe_options, list_results


def test_results_stand_behind_the_curves(make_adapter: Callable[..., Any]) -> None:
    evaluation = make_adapter().manifest.evaluation
    baselines = tuple(
        Baseline(name=name, value=value, gain=0.1, confidence=0.9, examples=10)
        for name, value in (("mean", 0.1), ("copy", 0.4))
    )
    probe = ProbeComparison(value=0.8, gain=0.05, low=0.0, high=0.1)
    results = list_results(evaluation.model_copy(update={"baselines": baselines, "linear_probe": probe}))
    assert results == {
        "test.pearson": 0.85,
        "test.mae": 0.41,
        "baseline": 0.4,
        "baseline.mean": 0.1,
        "baseline.copy": 0.4,
        "probe": 0.8,
        "probe.gain": 0.05,
    }
    assert not [name for name in results if "/" in name]
    plain = evaluation.model_copy(update={"baselines": (), "linear_probe": None})
    assert set(list_results(plain)) == {"test.pearson", "test.mae"}


def test_options_are_one_column() -> None:
    options = {"r": 8, "alpha": 16, "targets": ["query", "value"], "type": None, "deep": {"a": 1}}
    assert describe_options(options) == "r=8 alpha=16 targets=query,value"
