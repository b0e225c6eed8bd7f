"""Written into a folder as ``sitecustomize.py``, it notes what each Python process spends its time on.

Every process that starts with that folder first in PYTHONPATH leaves a file in PROCESS_TIMES when it ends:
how long it lived, its processor time, its peak of memory, and the wall time of its imports and of its calls
to MLflow. A process that is forked from another one counts from the fork.
"""

import atexit
import builtins
import functools
import json
import os
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TARGET = os.environ.get("PROCESS_TIMES", "")
_MLFLOW = ("lorry_registry.mlflow.index", "MlflowIndex")


class _Stopwatch:
    """Adds up the wall time of calls, the outermost ones only."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._local = threading.local()

    def measure(self, call: Callable[[], Any]) -> Any:
        if getattr(self._local, "runs", False):
            return call()
        self._local.runs = True
        started = time.perf_counter()
        try:
            return call()
        finally:
            self._local.runs = False
            self.seconds += time.perf_counter() - started


def install_hook(folder: Path) -> dict[str, str]:
    """Write this module into a new folder, and return the variables with which processes note their times."""
    folder.mkdir(parents=True)
    shutil.copyfile(__file__, folder / "sitecustomize.py")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    return {"PYTHONPATH": path, "PROCESS_TIMES": str(folder)}


def _read_start() -> float:
    """Return the seconds since the epoch at which this process was started, before its interpreter was."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    since_boot = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - since_boot + ticks / os.sysconf("SC_CLK_TCK")


def _note_times() -> None:
    imports, mlflow = _Stopwatch(), _Stopwatch()
    state = {"started": _read_start()}
    stock = builtins.__import__

    def import_measured(name: str, *arguments: Any, **options: Any) -> Any:
        if name in sys.modules:
            return stock(name, *arguments, **options)
        found = imports.measure(lambda: stock(name, *arguments, **options))
        _wrap_index(mlflow)
        return found

    def restart() -> None:
        state["started"] = time.time()
        imports.seconds = mlflow.seconds = 0.0

    def write() -> None:
        own = os.times()
        noted = {
            "command": [*sys.orig_argv, *sys.argv],
            "started": state["started"],
            "ended": time.time(),
            "cpu": own.user + own.system,
            "imports": imports.seconds,
            "mlflow": mlflow.seconds,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        (Path(_TARGET) / f"{os.getpid()}.json").write_text(json.dumps(noted))

    builtins.__import__ = import_measured
    os.register_at_fork(after_in_child=restart)
    atexit.register(write)


def _wrap_index(mlflow: _Stopwatch) -> None:
    module, name = _MLFLOW
    found = getattr(sys.modules.get(module), name, None)
    if found is None or getattr(found, "is_measured", False):
        return
    found.is_measured = True
    for attribute, method in list(vars(found).items()):
        if callable(method) and not attribute.startswith("_"):
            setattr(found, attribute, _measure_method(method, mlflow))


def _measure_method(method: Callable[..., Any], mlflow: _Stopwatch) -> Callable[..., Any]:
    @functools.wraps(method)
    def measured(*arguments: Any, **options: Any) -> Any:
        return mlflow.measure(lambda: method(*arguments, **options))

    return measured


if _TARGET:
    _note_times()
