"""Numbers of bytes, and probabilities: how they are written for people, and read from a task file."""

import re
from typing import Literal

KIB, MIB, GIB = 2**10, 2**20, 2**30

Unit = Literal["KiB", "MiB", "GiB"]

_BYTES: dict[Unit, int] = {"KiB": KIB, "MiB": MIB, "GiB": GIB}
# What Kubernetes writes behind a number.
_SUFFIXES = {
    "": 1,
    **{"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12},
    **{"Ki": KIB, "Mi": MIB, "Gi": GIB, "Ti": 2**40},
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([A-Za-z]*)")
_LEAST_GIB = 0.01


def format_size(size: int, *, compact: bool = False) -> str:
    """Return a number of bytes with the unit that suits it.

    Args:
        size: The bytes.
        compact: Whether it stands in a column or among estimates, where two or three digits say all and a
            file of some bytes is as good as none: ``293 KiB``, ``2.3 MiB``, ``64 MiB``, ``1.00 GiB``.
            Otherwise it describes a file of its own, and small ones count: ``812 B``, ``293.4 KiB``.
    """
    if compact:
        if size < MIB:
            return format_in(size, "KiB", digits=0)
        if size < GIB:
            return format_in(size, "MiB", digits=1 if size < 10 * MIB else 0)
        return format_in(size, "GiB", digits=2 if size < 10 * GIB else 1)
    if size < KIB:
        return f"{size} B"
    unit: Unit = "KiB" if size < MIB else "MiB" if size < GIB else "GiB"
    return f"{size / _BYTES[unit]:.1f} {unit}"


def format_in(size: float, unit: Unit, *, digits: int = 1) -> str:
    """Return a number of bytes in one unit, for numbers that are compared with each other or with a limit.

    Args:
        size: The bytes.
        unit: The unit.
        digits: How many digits behind the point.
    """
    return f"{size / _BYTES[unit]:,.{digits}f} {unit}"


def format_probability(value: float, *, digits: int = 0) -> str:
    """Return a probability in percent; no rounding makes a certainty of it: ``>99%``, ``<1%``.

    Args:
        value: The probability, from 0 to 1.
        digits: How many digits behind the point.
    """
    step = 10.0**-digits
    text = f"{value:.{digits}%}"
    if value < 1.0 and text == f"{1:.{digits}%}":
        return f">{100.0 - step:.{digits}f}%"
    if value > 0.0 and text == f"{0:.{digits}%}":
        return f"<{step:.{digits}f}%"
    return text


def add_quantities(first: str, second: str) -> str:
    """Return the sum of two quantities in Kubernetes' notation, rounded up to whole MiB."""
    return f"{-(-(parse_size(first) + parse_size(second)) // MIB)}Mi"


def format_range(low: int, high: int) -> str:
    """Return a range of bytes in GiB without the unit; one number where both ends read the same."""
    ends = [_format_gib(low), _format_gib(high)]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _format_gib(size: int) -> str:
    value = size / GIB
    if 0 < value < _LEAST_GIB:
        return f"<{_LEAST_GIB}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def parse_size(quantity: str) -> int:
    """Return the bytes of a quantity as Kubernetes writes it, such as ``4Gi``.

    Raises:
        ValueError: It is no such quantity.
    """
    match = _QUANTITY.fullmatch(quantity)
    if match is None or match.group(2) not in _SUFFIXES:
        raise ValueError(f"{quantity!r} is not a number of bytes; write 500Mi or 4Gi")
    return int(float(match.group(1)) * _SUFFIXES[match.group(2)])
