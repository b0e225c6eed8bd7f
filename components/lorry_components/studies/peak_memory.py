"""The peak memory of this process."""

import re
import resource
import sys
from pathlib import Path

from lorry_components.studies.trials import PeakMemory

_STATUS = Path("/proc/self/status")
_HIGH_WATER = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def measure_peak_memory() -> PeakMemory:
    """Return the GPU's peak if training uses one, and the peak of resident memory otherwise."""
    import torch

    if torch.cuda.is_available():
        return PeakMemory(size_bytes=torch.cuda.max_memory_allocated(), place="gpu")
    return PeakMemory(size_bytes=_read_resident_peak(), place="process")


def _read_resident_peak() -> int:
    # On Linux, getrusage counts what the starting process held before this program replaced its copy.
    high_water = _HIGH_WATER.search(_STATUS.read_text("utf-8")) if _STATUS.exists() else None
    if high_water is not None:
        return int(high_water.group(1)) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
