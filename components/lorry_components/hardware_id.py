"""The kind of this machine in a few words, so that only times of one kind are compared."""

import os
from pathlib import Path

_PROC = Path("/proc")


def describe_machine(proc: Path = _PROC) -> str:
    """Return the processors that this process may use, and the GPUs: ``2 x Intel(R) Xeon(R) ..., 1 x H100``.

    It imports no library, and opens no device. Where the system says nothing of its processors, their number
    is all there is.

    Args:
        proc: Where the system says so.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [f"{cores} x {_read_field(proc / 'cpuinfo', 'model name') or 'processor'}"]
    gpus = sorted(
        _read_field(path, "Model") or "GPU" for path in proc.glob("driver/nvidia/gpus/*/information")
    )
    parts += [f"{gpus.count(model)} x {model}" for model in dict.fromkeys(gpus)]
    return ", ".join(parts)


def _read_field(path: Path, name: str) -> str:
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    named = (line.partition(":") for line in lines)
    return next((value.strip() for field, _, value in named if field.strip() == name), "")
