"""The facts of an adapter that its manifest gives: its card and every report say these and no others.

Facts are plain data; the sentences made of them are here, too, so that a card, a report and its page use the
same words.
"""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from lorry_registry.manifest import Manifest
from lorry_registry.records.adapter_names import label_method, shorten_base
from lorry_registry.records.probe_description import judge_probe
from lorry_registry.text.sizes import format_size

NOTHING = "-"


class Facts(BaseModel):
    """Plain data about adapters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MetricFacts(Facts):
    """A metric on the test rows; ``low`` and ``high`` bound its 95 % interval, if known."""

    title: str
    value: float
    low: float | None = None
    high: float | None = None


class BaselineFacts(Facts):
    """Trivial baselines and the linear probe on the same rows, and the adapter's gain over it.

    ``examples`` says on how many of the rows; None: on all, or it is not known.
    """

    name: str
    value: float
    examples: int | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None


class SizeFacts(Facts):
    """How large an adapter is: its files in bytes, and its trained parameters."""

    size_bytes: int
    trained_parameters: int


class AdapterFacts(Facts):
    """Everything that is said of an adapter wherever it is shown.

    Attributes:
        task: The task.
        description: What the task is, in its owner's words.
        kind: Its task type.
        base: Its base, by a short name.
        method: Its method with its size.
        examples: How many test rows there are.
        metrics: All metrics, the one that the gate decides by first.
        probe: A linear model on the frozen base; None: it was not compared.
        baselines: Trivial baselines, the best one first.
        size: The adapter's size.
    """

    task: str
    description: str = ""
    kind: str = ""
    base: str = ""
    method: str = ""
    examples: int | None = None
    metrics: tuple[MetricFacts, ...] = ()
    probe: BaselineFacts | None = None
    baselines: tuple[BaselineFacts, ...] = ()
    size: SizeFacts | None = None

    @property
    def headline(self) -> MetricFacts | None:
        """The metric that the gate decides by; None: nothing was measured."""
        return self.metrics[0] if self.metrics else None


def read_adapter(manifest: Manifest) -> AdapterFacts:
    """Return what a manifest says."""
    evaluation = manifest.evaluation
    probe = evaluation.linear_probe
    return AdapterFacts(
        task=manifest.task,
        description=manifest.description,
        kind=manifest.kind,
        base=shorten_base(manifest.base.model),
        method=label_method(manifest.recipe) or manifest.method,
        examples=evaluation.examples,
        metrics=tuple(
            MetricFacts(
                title=manifest.evaluation.name_metric(name),
                value=metric.value,
                low=metric.low,
                high=metric.high,
            )
            for name, metric in evaluation.list_metrics()
        ),
        probe=BaselineFacts(name="linear probe", **probe.model_dump()) if probe else None,
        baselines=sort_baselines(
            BaselineFacts(name=each.name, value=each.value, examples=each.examples, gain=each.gain)
            for each in evaluation.baselines
        ),
        size=measure_adapter(manifest),
    )


def measure_adapter(manifest: Manifest) -> SizeFacts:
    """Return how large an adapter is."""
    return SizeFacts(size_bytes=manifest.size_bytes, trained_parameters=manifest.parameters.trained)


def sort_baselines(baselines: Iterable[BaselineFacts]) -> tuple[BaselineFacts, ...]:
    """Return them with the best one first."""
    return tuple(sorted(baselines, key=lambda each: -each.value))


def format_metric(metric: MetricFacts | None) -> str:
    """Return the name and the value of a metric."""
    return f"{metric.title} {metric.value:.3f}" if metric else NOTHING


def format_interval(metric: MetricFacts | None) -> str:
    """Return the 95 % interval of a metric."""
    if metric is None or metric.low is None or metric.high is None:
        return NOTHING
    return f"{metric.low:.3f} to {metric.high:.3f}"


def describe_probe(probe: BaselineFacts) -> str:
    """Return the linear probe's value, and whether the adapter beats it."""
    if probe.gain is None or probe.low is None or probe.high is None:
        return f"{probe.value:.3f}"
    return (
        f"{probe.value:.3f}; the adapter {probe.gain:+z.3f} (95 % interval {probe.low:+z.3f} to "
        f"{probe.high:+z.3f}). {judge_probe(probe.low, probe.high)}"
    )


def describe_baselines(adapter: AdapterFacts) -> str:
    """Return the trivial baselines, each with the adapter's gain over it."""
    return "; ".join(_describe_baseline(each, adapter.examples) for each in adapter.baselines)


def _describe_baseline(baseline: BaselineFacts, examples: int | None) -> str:
    is_part = baseline.examples is not None and baseline.examples != examples
    rows = f" on {baseline.examples:,} of the rows" if is_part else ""
    gain = f", the adapter {baseline.gain:+z.3f}" if baseline.gain is not None else ""
    return f"{baseline.name} {baseline.value:.3f}{rows}{gain}"


def describe_size(size: SizeFacts) -> str:
    """Return how large an adapter is."""
    return f"{format_size(size.size_bytes)}, {size.trained_parameters:,} trained parameters"
