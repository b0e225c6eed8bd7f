"""A test that the validation rows and the test rows are of one kind, by one adapter's scores on both."""

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

# Of parts that are alike, one in a hundred is taken for another: this is a warning in every run.
_LIMIT = NormalDist().inv_cdf(0.995)
_INTERVAL = 2.0 * NormalDist().inv_cdf(0.975)


def describe_validation_gap(details: Mapping[str, Mapping[str, Any]]) -> str:
    """Return that validation and test scores differ by more than chance; "": they do not, or are not known.

    Args:
        details: What the steps of a task left, by step.
    """
    trained, evaluated = details.get("finetune", {}), details.get("evaluate", {})
    try:
        scores = trained["curve"]["scores"]
        if trained["curve"]["metric"] != evaluated["metric"] or trained.get("kept_start") or not scores:
            return ""
        validation, test = float(scores[-1][1]), float(evaluated["value"])
        low, high = map(float, evaluated["interval"])
        rows, test_rows = int(details["prepare_data"]["rows"]["validation"]), int(evaluated["examples"])
    except (KeyError, TypeError, ValueError, IndexError):
        # The run does not score its validation rows, or its file was changed.
        return ""
    if rows < 1 or test_rows < 1:
        return ""
    error = (high - low) / _INTERVAL
    # The same rows would scatter as those of the test; a share of few rows scatters by what it is itself.
    own = max(error * (test_rows / rows) ** 0.5, (max(0.0, validation * (1.0 - validation)) / rows) ** 0.5)
    gap = test - validation
    if abs(gap) <= _LIMIT * (error**2 + own**2) ** 0.5:
        return ""
    title = str(evaluated.get("metric_title") or evaluated["metric"])
    return (
        f"{title} is {validation:.3f} on the {rows:,} validation rows and {test:.3f} on the {test_rows:,} "
        f"test rows ({gap:+z.3f}), a gap beyond chance: the two parts are of different kinds, so that what "
        "is chosen by validation rows may not be best on test rows"
    )
