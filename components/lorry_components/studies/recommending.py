"""Which variant to take: the smallest whose metric is not significantly below the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from lorry_components.methods import METHODS
from lorry_components.studies.drafting import Variant
from lorry_components.studies.summarizing import StudyRow, compare_samples


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to take.

    Attributes:
        label: The variant's.
        section: YAML to paste into a task file.
        reason: Why, in a sentence.
    """

    label: str
    section: str
    reason: str


def recommend_variant(
    rows: Sequence[StudyRow],
    samples: Mapping[str, NDArray[np.float64]],
    *,
    confidence: float,
) -> Recommendation | None:
    """Choose the variant with the fewest trained parameters of those not significantly below the best.

    A variant is below the best when so large a share of paired resamples shows it, each on the same rows for
    both. Of equally small ones the better is taken. Variants of which a seed failed are left out.

    Args:
        rows: The rows of a study.
        samples: Each variant's scores on the same draws, see :func:`draw_scores`.
        confidence: The share.

    Returns:
        The choice, or None when nothing is complete.
    """
    complete = [row for row in rows if row.is_complete and row.trained_parameters is not None]
    if not complete:
        return None
    best = max(complete, key=_read_value)
    shares = {
        row.variant.label: float(np.mean(samples[row.variant.label] < samples[best.variant.label]))
        for row in complete
    }
    near = [row for row in complete if row is best or shares[row.variant.label] < confidence]
    chosen = min(near, key=lambda row: (row.trained_parameters or 0, -_read_value(row)))
    return Recommendation(
        label=chosen.variant.label,
        section=write_section(chosen.variant),
        reason=_explain(
            chosen, best, samples, shares[chosen.variant.label], has_smaller=_has_smaller(chosen, complete)
        ),
    )


def write_section(variant: Variant) -> str:
    """Return what of a variant belongs into a task file, as YAML."""
    spec = variant.spec
    document: dict[str, Any] = {}
    if "template" in variant.facts:
        document["data"] = {"template": spec.data.template}
    if variant.is_trained:
        method: dict[str, Any] = {"name": spec.method.name, **spec.method.options}
        if spec.method.max_adapter_mib is not None:
            method["max_adapter_mib"] = spec.method.max_adapter_mib
        document["method"] = method
        # Always: the file's own may have been chosen for another method.
        rate = spec.train.learning_rate or METHODS[spec.method.name].learning_rate
        document["train"] = {"learning_rate": rate}
    lines: list[str] = []
    for name, section in document.items():
        written = yaml.safe_dump(section, default_flow_style=True, sort_keys=False, width=1_000_000)
        lines.append(f"{name}: {written.strip()}")
    return "\n".join(lines)


def _explain(
    chosen: StudyRow,
    best: StudyRow,
    samples: Mapping[str, NDArray[np.float64]],
    below: float,
    *,
    has_smaller: bool,
) -> str:
    value, highest = _read_value(chosen), _read_value(best)
    count = f"{chosen.trained_parameters:,} trained parameters"
    if chosen is best:
        beside = ", and all that train fewer are significantly below it" if has_smaller else ""
        return f"{chosen.variant.label} has the best metric, {value:.3f}, with {count}{beside}"
    difference = compare_samples(value - highest, samples[chosen.variant.label], samples[best.variant.label])
    return (
        f"{chosen.variant.label} trains the fewest parameters ({chosen.trained_parameters:,}) of those whose "
        f"metric is not significantly below the best, {best.variant.label}: {value:.3f} against "
        f"{highest:.3f}, difference {difference.value:+.3f} ({difference.low:+.3f} to "
        f"{difference.high:+.3f}), below it in {below:.0%} of the paired resamples"
    )


def _has_smaller(chosen: StudyRow, rows: Sequence[StudyRow]) -> bool:
    return any((row.trained_parameters or 0) < (chosen.trained_parameters or 0) for row in rows)


def _read_value(row: StudyRow) -> float:
    assert row.estimate is not None
    return row.estimate.value
