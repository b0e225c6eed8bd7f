"""The figures of a task's trainings on MLflow's pages: their names, and the view of their table.

By itself, MLflow lists neither a metric nor a parameter. A view is kept in a tag of the experiment, in the
form that MLflow 3.17 gives to those that people save under *Views*; older ones take no notice of it.
"""

import json
from collections.abc import Mapping
from typing import Any

from lorry_registry.manifest import Evaluation
from lorry_registry.mlflow.version_card import INTERVAL_TAG, STATUS_TAG

VIEW_KEY = "lorry"
"""What stands in an address that opens the view."""

VIEW_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
_NAME = "Results"
_BASELINE, _PROBE = "baseline", "probe"
_GAIN = f"{_PROBE}.gain"
OPTIONS_PARAMETER = "method.options"
# MLflow's own columns: a run's name, which holds its version and its method, and when it was. The widths let
# the results stand on a screen of 1440 pixels, even beside MLflow's assistant.
_NAME_COLUMN, _DATE_COLUMN = "attributes.`Run Name`", "runDateAndNestInfo"
_LENGTH = ("train.learning_rate", "train.epochs", "train.steps", "train.batch_size")
_NAME_WIDTH, _DATE_WIDTH = 150, 105
_NARROW, _MIDDLE, _WIDE = 80, 112, 220
# A person who saves a view has a clock.
_TIME = 0


def list_results(evaluation: Evaluation) -> dict[str, float]:
    """Return an evaluation as metrics of a run.

    A page of MLflow's shows the curves first, whose names have a slash, and those without one at its end: of
    these each would be a chart with a single bar.
    """
    results = {f"test.{name}": metric.value for name, metric in evaluation.metrics.items()}
    results |= {f"{_BASELINE}.{each.name}": each.value for each in evaluation.baselines}
    if evaluation.baselines:
        # They are of the metric that the gate decides by, of which more is better.
        results[_BASELINE] = max(each.value for each in evaluation.baselines)
    if (probe := evaluation.linear_probe) is not None:
        results |= {_PROBE: probe.value, _GAIN: probe.gain}
    return results


def describe_options(options: Mapping[str, Any]) -> str:
    """Return the options of a method in one line, for a column: ``r=8 alpha=16``."""
    return " ".join(
        f"{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in options.items()
        if value is not None and not isinstance(value, Mapping)
    )


def build_view(primary: str, *, of_studies: bool = False) -> str:
    """Return the value of the tag that keeps the view.

    Args:
        primary: The metric that the gate decides by.
        of_studies: Whether it is for a task's studies, of which none is a version.
    """
    results = (
        {
            "tags.`lorry.recommendation`": _WIDE,
            f"tags.`{STATUS_TAG}`": _MIDDLE,
            f"metrics.`study/{primary}`": _MIDDLE,
            "tags.`lorry.method`": _NARROW,
        }
        if of_studies
        else {
            f"tags.`{STATUS_TAG}`": _MIDDLE,
            f"metrics.`test.{primary}`": _MIDDLE,
            f"tags.`{INTERVAL_TAG}`": _MIDDLE,
            f"metrics.`{_BASELINE}`": _NARROW,
            f"metrics.`{_GAIN}`": _NARROW,
        }
    )
    columns = {
        **results,
        f"params.`{OPTIONS_PARAMETER}`": _WIDE,
        **{f"params.`{name}`": _NARROW for name in _LENGTH},
    }
    own = {_NAME_COLUMN: _NAME_WIDTH, _DATE_COLUMN: _DATE_WIDTH}
    state = json.dumps(
        {
            "selectedColumns": list(columns),
            "columnOrder": [*own, *columns],
            "columnWidths": own | columns,
        }
    )
    return json.dumps({"name": _NAME, "createdAt": _TIME, "updatedAt": _TIME, "state": state})


def is_own_view(value: str) -> bool:
    """Return whether a view is one of ours, and none that a person saved in its place."""
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("updatedAt") == _TIME
