"""How sure a gain is, with as many resamples as it takes to tell."""

from statistics import NormalDist

from lorry_components.metrics.base import Scorer
from lorry_components.metrics.bootstrap import estimate_gain_confidence
from lorry_registry.manifest import MetricValue

# Where one resample in a thousand may show no gain, a thousand resamples cannot tell.
_EXPECTED_LOSSES = 20
_MOST_RESAMPLES = 100_000


def measure_confidence(
    candidate: Scorer,
    other: Scorer,
    rows: int,
    *,
    minimum_gain: float,
    needed: float,
    resamples: int,
) -> float:
    """Return the share of paired resamples in which a candidate is better by more than a minimum.

    The higher the confidence that is needed, the more resamples are drawn, in rounds; no further one once it
    is sure that the candidate does not reach it.

    Args:
        candidate: Scores the candidate on some of the rows.
        other: Scores what it is compared with on the same rows.
        rows: How many rows there are.
        minimum_gain: The gain that has to be exceeded.
        needed: The confidence that is needed, below 1.
        resamples: How often rows are drawn in each round.
    """
    wanted = min(max(resamples, round(_EXPECTED_LOSSES / (1.0 - needed))), max(_MOST_RESAMPLES, resamples))
    rounds = -(-wanted // resamples)
    losses = 0.0
    for done in range(1, rounds + 1):
        share = estimate_gain_confidence(
            candidate, other, rows, minimum_gain=minimum_gain, resamples=resamples, seed=done - 1
        )
        losses += 1.0 - share
        if losses > rounds * (1.0 - needed):
            break
    return 1.0 - losses / done


def compare_intervals(candidate: MetricValue, other: MetricValue, *, minimum_gain: float) -> float:
    """Return how sure it is that one value is above another by more than a minimum, from their intervals.

    The two are taken as measured on different rows, with errors that are normally distributed: what is hard
    for both does not cancel out, so that a larger gain is needed than on the same rows.

    Args:
        candidate: The value, with the middle 95 % of its resamples.
        other: The value that it is compared with.
        minimum_gain: The gain that has to be exceeded.
    """
    normal = NormalDist()
    widths = (each.high - each.low for each in (candidate, other))
    spread = sum((width / (2.0 * normal.inv_cdf(0.975))) ** 2 for width in widths) ** 0.5
    gain = candidate.value - other.value - minimum_gain
    return normal.cdf(gain / spread) if spread > 0.0 else float(gain > 0.0)
