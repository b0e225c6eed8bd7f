"""The comparison of an adapter with the linear probe in words, for terminals, cards and MLflow."""

from lorry_registry.manifest import Evaluation

_REMARK = "and method: {name: probe} is fitted in seconds."


def describe_linear_probe(method: str, evaluation: Evaluation) -> str:
    """Return the comparison with the linear probe, and what follows from it; empty: there was none.

    Args:
        method: The method's name, or a label of it.
        evaluation: The evaluation of an adapter.
    """
    probe = evaluation.linear_probe
    if probe is None:
        return ""
    return (
        f"{evaluation.primary}: {method} {evaluation.headline.value:.3f}, linear probe on the frozen base "
        f"{probe.value:.3f}; the difference is {probe.gain:+z.3f} (95 % interval {probe.low:+z.3f} to "
        f"{probe.high:+z.3f}). {judge_probe(probe.low, probe.high)}"
    )


def judge_probe(low: float, high: float) -> str:
    """Return whether an adapter beats the linear probe, in a sentence.

    Args:
        low: The lower end of the 95 % interval of the adapter's gain.
        high: The upper end.
    """
    if low > 0:
        return "It beats the probe."
    if high < 0:
        return f"It does not beat the probe: it is worse, {_REMARK}"
    return f"It does not beat the probe, as far as these rows can tell, {_REMARK}"
