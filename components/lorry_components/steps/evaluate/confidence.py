"""The confidence of a gain over a recorded value."""

from statistics import NormalDist

from lorry_registry.manifest import MetricValue


def compare_intervals(candidate: MetricValue, other: MetricValue, *, minimum_gain: float) -> float:
    """Return how sure it is that one value is above another by more than a minimum, from their intervals.

    The two are taken as measured on different rows, with errors that are normally distributed: what is hard
    for both does not cancel out, so that a larger gain is needed than on the same rows.

    Args:
        candidate: The value, with its 95 % interval.
        other: The value that it is compared with.
        minimum_gain: The gain that has to be exceeded.
    """
    normal = NormalDist()
    widths = (each.high - each.low for each in (candidate, other))
    spread = sum((width / (2.0 * normal.inv_cdf(0.975))) ** 2 for width in widths) ** 0.5
    gain = candidate.value - other.value - minimum_gain
    return normal.cdf(gain / spread) if spread > 0.0 else float(gain > 0.0)
