"""What a server counts and logs of its requests."""

import asyncio
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lorry_components.serving.application import Service
from lorry_components.serving.batching import Answer, Batcher, Work
from lorry_components.serving.catalogue import Catalogue, ServedVersion
from lorry_components.serving.requests import Limits
from lorry_components.serving.tokens import Grant, find_grant
from lorry_registry.errors import StoreError

PREDICT = "/tasks/reviews/predict"
PRIVATE = "a text that nobody else reads"
TOKEN_DIGEST = "a" * 64


def build_catalogue() -> Catalogue:
    """Return a catalogue that serves one version, computed by nothing."""
    loaded: Any = SimpleNamespace(
        manifest=SimpleNamespace(probe=SimpleNamespace(rows=[{"text": "a"}]), labels=None)
    )
    unused: Any = None
    return Catalogue(
        unused,
        unused,
        versions={"reviews": ServedVersion("reviews", 3, "sha256:ab", loaded, "group")},
        refused={"films": StoreError("it is away")},
    )


def compute(batch: Sequence[Work]) -> list[Answer]:
    if any(row["text"] == "fail" for work in batch for row in work.rows):
        raise RuntimeError("the engine broke")
    return [[{"label": "good"} for _row in work.rows] for work in batch]


def ask(service: Service, *requests: tuple[str, str, Any], **headers: str) -> list[httpx.Response]:
    application = service.build_application()

    async def send() -> list[httpx.Response]:
        transport = httpx.ASGITransport(application, raise_app_exceptions=False)
        async with (
            application.router.lifespan_context(application),
            httpx.AsyncClient(transport=transport, base_url="http://a", headers=headers) as client,
        ):
            return [await client.request(method, path, json=body) for method, path, body in requests]

    return asyncio.run(send())


def read_samples(text: str) -> dict[str, float]:
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            shown = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{shown}}}"] = sample.value
    return samples


def test_requests_rows_and_batches_are_counted() -> None:
    service = Service(build_catalogue(), Batcher(compute), Limits(), "test")
    *_, metrics = ask(
        service,
        ("POST", PREDICT, {"inputs": ["a", "b"]}),
        ("POST", PREDICT, {"inputs": ["a"]}),
        ("POST", PREDICT, {"inputs": []}),
        ("POST", PREDICT, {"inputs": ["fail"]}),
        ("POST", "/tasks/nowhere/predict", {"inputs": ["a"]}),
        ("GET", "/v2/health/live", None),
        ("GET", "/metrics", None),
    )
    assert metrics.headers["content-type"].startswith("text/plain")
    samples = read_samples(metrics.text)
    counted = {
        name: value for name, value in samples.items() if name.startswith("lorry_serve_requests_total")
    }
    assert counted == {
        "lorry_serve_requests_total{status=200,task=reviews,version=3}": 2,
        "lorry_serve_requests_total{status=400,task=reviews,version=3}": 1,
        "lorry_serve_requests_total{status=500,task=reviews,version=3}": 1,
        # A name that nobody serves is no label: anybody could fill the memory with them.
        "lorry_serve_requests_total{status=404,task=,version=}": 1,
    }
    assert samples["lorry_serve_rows_total{task=reviews,version=3}"] == 3
    assert samples["lorry_serve_request_seconds_count{task=reviews,version=3}"] == 4
    assert samples["lorry_serve_batch_rows_sum{}"] == 4
    assert samples["lorry_serve_batch_rows_count{}"] == 3
    assert samples["lorry_serve_queue_rows{}"] == 0
    assert samples["lorry_serve_adapter{adapter=sha256:ab,task=reviews,version=3}"] == 1
    assert samples["lorry_serve_refused{task=films}"] == 1
    assert samples["lorry_serve_ledger_age_seconds{}"] >= 0


def test_the_log_has_an_entry_for_each_request_without_texts_or_tokens() -> None:
    log: list[dict[str, Any]] = []
    service = Service(build_catalogue(), Batcher(compute), Limits(), "test", log=log.append)
    ask(
        service,
        ("POST", f"{PREDICT}?token=secret-token", {"inputs": [PRIVATE, PRIVATE]}),
        ("POST", f"/tasks/{PRIVATE}/predict", {"inputs": [PRIVATE]}),
        ("GET", f"/{PRIVATE}", None),
        Authorization="Bearer secret-token",
    )
    found = [[entry[name] for name in ("operation", "task", "version", "rows", "status")] for entry in log]
    assert found == [
        ["predict", "reviews", 3, 2, 200],
        ["predict", "", None, 0, 404],
        ["", "", None, 0, 404],
    ]
    written = json.dumps(log)
    assert "nobody" not in written
    assert "secret" not in written


@pytest.mark.parametrize(("tasks", "status"), [(None, 200), (frozenset({"reviews"}), 403)])
def test_the_metrics_are_for_tokens_for_all_tasks(
    monkeypatch: pytest.MonkeyPatch, tasks: frozenset[str] | None, status: int
) -> None:
    grant = Grant(TOKEN_DIGEST, tasks)
    monkeypatch.setattr(f"{Service.__module__}.{find_grant.__name__}", lambda _grants, _token: grant)
    service = Service(build_catalogue(), Batcher(compute), Limits(), "test", grants=[grant])
    (answer,) = ask(service, ("GET", "/metrics", None), Authorization="Bearer a")
    assert answer.status_code == status
    (answer,) = ask(service, ("GET", "/metrics", None))
    assert answer.status_code == 401
