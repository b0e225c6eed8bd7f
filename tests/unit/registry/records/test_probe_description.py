"""What is said of an adapter beside a linear probe, and where."""

import pytest

from lorry_registry.manifest import Evaluation, MetricValue, ProbeComparison
from lorry_registry.records.probe_description import describe_linear_probe


def judge(gain: float, low: float, high: float) -> Evaluation:
    return Evaluation(
        split="test",
        examples=3080,
        primary="accuracy",
        metrics={"accuracy": MetricValue(value=0.933, low=0.92, high=0.94)},
        linear_probe=ProbeComparison(value=0.933 - gain, gain=gain, low=low, high=high),
    )


@pytest.mark.parametrize(
    ("gain", "low", "high", "verdict"),
    [
        (0.02, 0.01, 0.03, "It beats the probe."),
        (0.004, -0.003, 0.011, "It does not beat the probe, as far as these rows can tell, and method"),
        (0.004, 0.0, 0.011, "It does not beat the probe, as far as these rows can tell, and method"),
        (-0.02, -0.03, -0.01, "It does not beat the probe: it is worse, and method"),
    ],
)
def test_it_is_said_plainly_whether_the_adapter_beats_the_probe(
    gain: float, low: float, high: float, verdict: str
) -> None:
    text = describe_linear_probe("lora", judge(gain, low, high))
    assert text.startswith(
        f"accuracy: lora 0.933, linear probe on the frozen base {0.933 - gain:.3f}; the difference is "
        f"{gain:+.3f}"
    )
    assert f"(95 % interval {low:+.3f} to {high:+.3f}). {verdict}" in text


def test_a_difference_that_rounds_to_nothing_has_no_minus() -> None:
    text = describe_linear_probe("lora", judge(-1e-6, -4e-4, 4e-4))
    assert "the difference is +0.000 (95 % interval +0.000 to +0.000)" in text


def test_nothing_is_said_where_nothing_was_compared() -> None:
    evaluation = judge(0.0, 0.0, 0.0).model_copy(update={"linear_probe": None})
    assert describe_linear_probe("lora", evaluation) == ""
