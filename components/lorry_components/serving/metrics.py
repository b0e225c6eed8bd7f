"""A server's counters, for Prometheus, and the log of its requests. Neither holds a text or a token."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lorry_components.serving.batching import Batcher
from lorry_components.serving.catalogue import Catalogue, ServedVersion

_VERSION_LABELS = ("task", "version")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# Where a request keeps the version that it found, and how many rows it has.
_SERVED, _COUNT = "served", "rows"
_CUT_OFF, _FAILED = 503, 500
# What the log says of each request.
Entry = dict[str, Any]


def note_version(request: Request, served: ServedVersion) -> None:
    """Note which version a request is for."""
    setattr(request.state, _SERVED, served)


def note_rows(request: Request, rows: int) -> None:
    """Note how many rows a request has."""
    setattr(request.state, _COUNT, rows)


class Metrics:
    """The metrics of a server.

    Args:
        catalogue: What is served.
        batcher: What computes it.
    """

    def __init__(self, catalogue: Catalogue, batcher: Batcher) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_State(catalogue, batcher))
        self._requests = Counter(
            "lorry_serve_requests",
            "Requests for predictions, by status; no task: none was found.",
            (*_VERSION_LABELS, "status"),
            registry=self._registry,
        )
        self._rows = Counter(
            "lorry_serve_rows", "Rows that were answered.", _VERSION_LABELS, registry=self._registry
        )
        self._seconds = Histogram(
            "lorry_serve_request_seconds",
            "From the headers of a request to the end of its answer.",
            _VERSION_LABELS,
            buckets=_SECONDS,
            registry=self._registry,
        )
        batches = Histogram(
            "lorry_serve_batch_rows",
            "Rows that were computed together.",
            buckets=_ROWS,
            registry=self._registry,
        )
        batcher.on_batch = batches.observe

    def count(self, entry: Entry) -> None:
        """Count a request for predictions."""
        labels = (entry["task"], str(entry["version"] or ""))
        self._requests.labels(*labels, entry["status"]).inc()
        if entry["task"]:
            self._seconds.labels(*labels).observe(entry["seconds"])
        if entry["status"] == 200:
            self._rows.labels(*labels).inc(entry["rows"])

    def write(self) -> bytes:
        """Return the metrics in Prometheus' format of text."""
        return generate_latest(self._registry)


class _State(Collector):
    """What is read when it is asked for."""

    def __init__(self, catalogue: Catalogue, batcher: Batcher) -> None:
        self._catalogue = catalogue
        self._batcher = batcher

    def collect(self) -> Iterator[GaugeMetricFamily]:
        served = GaugeMetricFamily(
            "lorry_serve_adapter", "An adapter in memory: 1.", labels=[*_VERSION_LABELS, "adapter"]
        )
        for each in list(self._catalogue.versions.values()):
            served.add_metric([each.task, str(each.version), each.adapter_id], 1)
        refused = GaugeMetricFamily(
            "lorry_serve_refused", "A champion that is not served: 1.", labels=["task"]
        )
        for task in list(self._catalogue.refused):
            refused.add_metric([task], 1)
        yield served
        yield refused
        yield GaugeMetricFamily("lorry_serve_queue_rows", "Rows that wait.", value=self._batcher.waiting_rows)
        yield GaugeMetricFamily(
            "lorry_serve_ledger_age_seconds",
            "Since when the champion of some task was not read.",
            value=self._catalogue.ledger_age,
        )


class RequestWatch:
    """Middleware that tells what each request was, when it is over.

    Args:
        application: What answers.
        metrics: Counts requests for predictions.
        log: Called with the entry of each request; None: it is not.
    """

    def __init__(
        self, application: ASGIApp, metrics: Metrics, log: Callable[[Entry], None] | None = None
    ) -> None:
        self._application = application
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        started = time.perf_counter()
        status = _FAILED

        async def watch(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._application(scope, receive, watch)
        except asyncio.CancelledError:
            status = _CUT_OFF
            raise
        finally:
            self._tell(scope, status, time.perf_counter() - started)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        state = scope.get("state", {})
        served: ServedVersion | None = state.get(_SERVED)
        # The path could hold anything; the name of what answers does not.
        operation = getattr(scope.get("endpoint"), "__name__", "").removeprefix("_")
        entry: Entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": (scope.get("client") or ("",))[0],
            "method": scope["method"],
            "operation": operation,
            "task": served.task if served else "",
            "version": served.version if served else None,
            "rows": state.get(_COUNT, 0),
            "status": status,
            "seconds": round(seconds, 6),
        }
        if operation in ("predict", "infer"):
            self._metrics.count(entry)
        if self._log is not None:
            self._log(entry)
