"""What ``lorry listen`` takes and what it refuses: signatures, replays, sizes, events of no task."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.webhooks.delivery import _generate_hmac_signature

from lorry_components.tasks.definition import define_task
from lorry_pipelines.listening.application import MOST_BODY_BYTES, Receiver, build_application
from lorry_pipelines.listening.events import Request, read_mlflow_event, read_s3_event
from lorry_pipelines.listening.requests import RequestLog
from lorry_pipelines.listening.signatures import check_delivery, sign_delivery
from lorry_registry.errors import StoreError
from lorry_registry.stores import LocalStore

SECRET = "a secret that is long enough"  # noqa: S105 - of these tests
NOW = 1_900_000_000

Send = Callable[..., tuple[int, dict[str, Any]]]


def make_task(name: str, source: str) -> Any:
    document = {
        "name": name,
        "kind": "text-classification",
        "base": {"model": "./base"},
        "data": {"source": source},
        "method": {"name": "lora"},
    }
    return define_task(document, where=name, folder=Path("/nowhere"))


TASKS = (
    make_task("reviews", "s3://data/reviews"),
    make_task("films", "s3://data/films/rows.jsonl"),
    make_task("here", "rows.jsonl"),
)


def make_s3_event(key: str = "reviews/new.csv", event: str = "ObjectCreated:Put", mark: str = "1") -> bytes:
    entry = {"bucket": {"name": "data"}, "object": {"key": key, "sequencer": mark}}
    return json.dumps({"Records": [{"eventName": event, "s3": entry}]}).encode()


def make_webhook(name: str = "reviews", key: str = "lorry.retrain", action: str = "set") -> bytes:
    data = {"name": name, "version": "3", "key": key, "value": "yes"}
    return json.dumps({"entity": "model_version_tag", "action": action, "data": data}).encode()


@pytest.fixture
def woken() -> list[int]:
    return []


@pytest.fixture
def send(store: LocalStore, woken: list[int]) -> Iterator[Send]:
    """Return a function that sends a delivery to the application, signed unless told otherwise."""
    receiver = Receiver(RequestLog(store), SECRET, lambda: woken.append(1), lambda: float(NOW))
    application = build_application(TASKS, receiver)

    def start(
        body: bytes, path: str = "/s3", *, delivery: str = "d1", sent_at: int = NOW, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        signed = {
            "x-lorry-delivery-id": delivery,
            "x-lorry-timestamp": str(sent_at),
            "x-lorry-signature": sign_delivery(SECRET, delivery, sent_at, body),
        }
        headers = signed | {key.replace("_", "-"): value for key, value in headers.items()}
        # A browser that other tests use keeps an event loop running in their thread.
        return thread.submit(asyncio.run, call(application, path, body, headers)).result()

    with ThreadPoolExecutor(max_workers=1) as thread:
        yield start


async def call(
    application: Any, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    """Call an application as a server does."""
    parts = [body[start : start + 65_536] for start in range(0, len(body), 65_536)] or [b""]
    answers: list[Any] = []

    async def receive() -> dict[str, Any]:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def respond(message: Any) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await application(scope, receive, respond)
    content = b"".join(message.get("body", b"") for message in answers[1:])
    return answers[0]["status"], json.loads(content) if content.startswith(b"{") else {}


def test_changed_data_ask_for_their_task_once(send: Send, store: LocalStore, woken: list[int]) -> None:
    assert send(make_s3_event()) == (202, {"state": "asked", "tasks": ["reviews"]})
    # The same delivery again, and the same event in another one: S3 delivers at least once.
    assert send(make_s3_event()) == (200, {"state": "known"})
    assert send(make_s3_event(), delivery="d2") == (200, {"state": "known", "tasks": ["reviews"]})
    assert send(make_s3_event(mark="2"), delivery="d3")[0] == 202
    assert woken == [1, 1]
    assert [request.tasks for request in RequestLog(store).list_pending()] == [("reviews",), ("reviews",)]


def test_a_restart_forgets_no_request(send: Send, store: LocalStore) -> None:
    send(make_s3_event())
    receiver = Receiver(RequestLog(store), SECRET, lambda: None, lambda: float(NOW))
    body = make_s3_event()
    headers = {
        "x-lorry-delivery-id": "d1",
        "x-lorry-timestamp": str(NOW),
        "x-lorry-signature": sign_delivery(SECRET, "d1", NOW, body),
    }
    code, content = receiver.take(headers, body, lambda document, _: read_s3_event(document, TASKS))
    assert (code, content["state"]) == (200, "known")


def test_a_tag_in_mlflow_asks_for_its_task(send: Send) -> None:
    assert send(make_webhook(), "/mlflow") == (202, {"state": "asked", "tasks": ["reviews"]})
    for number, other in enumerate(
        (make_webhook(key="x"), make_webhook(name="x"), make_webhook(action="deleted"))
    ):
        assert send(other, "/mlflow", delivery=f"o{number}") == (200, {"state": "concerns no task"})


def test_mlflows_own_signature_is_taken() -> None:
    body = make_webhook().decode()
    headers = {
        "x-mlflow-delivery-id": "d1",
        "x-mlflow-timestamp": str(NOW),
        "x-mlflow-signature": _generate_hmac_signature(SECRET, "d1", str(NOW), body),
    }
    assert check_delivery(SECRET, headers, body.encode(), now=NOW) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"x_lorry_signature": "v1,AAAA"},
        {"x_lorry_signature": ""},
        {"x_lorry_signature": sign_delivery("another secret, just as long", "d1", NOW, make_s3_event())},
        {"x_lorry_signature": sign_delivery(SECRET, "d2", NOW, make_s3_event())},
        {"x_lorry_signature": sign_delivery(SECRET, "d1", NOW - 1, make_s3_event())},
        {"x_lorry_signature": sign_delivery(SECRET, "d1", NOW, make_s3_event(key="films/rows.jsonl"))},
        {"x_lorry_timestamp": "now"},
        {"x_lorry_timestamp": "9" * 5000},
        {"x_lorry_delivery_id": ""},
        {"sent_at": NOW - 301},
        {"sent_at": NOW + 301},
    ],
)
def test_what_is_not_signed_or_too_old_is_refused(
    send: Send, store: LocalStore, changes: dict[str, Any]
) -> None:
    assert send(make_s3_event(), **changes) == (401, {"error": "not signed with the secret, or too old"})
    assert RequestLog(store).list_pending() == []


@given(
    st.dictionaries(
        st.sampled_from([f"x-lorry-{name}" for name in ("signature", "timestamp", "delivery-id")]), st.text()
    ),
    st.binary(max_size=50),
)
def test_no_header_gets_past_without_the_secret(headers: dict[str, str], body: bytes) -> None:
    assert check_delivery(SECRET, headers, body, now=NOW) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"7",
        b"\xff",
        b'{"Records": []}',
        b'{"Records": [1]}',
        b'{"Records": [{}]}',
        b"[" * 5000,
        b'{"Records": [{"eventName": "ObjectCreated:Put", '
        b'"s3": {"bucket": {"name": 1}, "object": {"key": 2}}}]}',
    ],
)
def test_what_is_no_event_is_refused(send: Send, body: bytes) -> None:
    assert send(body)[0] == 400
    assert send(body, "/mlflow", delivery="d2")[0] == 400


def test_a_large_body_is_refused(send: Send) -> None:
    assert send(b" " * (MOST_BODY_BYTES + 1)) == (413, {"error": "too large"})


def test_a_store_that_is_gone_lets_the_sender_try_again(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:

        def fail(_log: RequestLog, _request: Request) -> bool:
            raise StoreError("is gone")

        broken.setattr(RequestLog, "enter", fail)
        assert send(make_s3_event())[0] == 503
    assert send(make_s3_event())[0] == 202


@pytest.mark.parametrize(
    ("key", "event", "expected"),
    [
        ("reviews/a/b.csv", "ObjectCreated:Put", ("reviews",)),
        ("reviews", "s3:ObjectCreated:CompleteMultipartUpload", ("reviews",)),
        ("films%2Frows.jsonl", "ObjectRemoved:Delete", ("films",)),
        ("films/other.jsonl", "ObjectCreated:Put", None),
        ("reviews-of-others/a.csv", "ObjectCreated:Put", None),
        ("reviews/a.csv", "ObjectAccessed:Get", None),
    ],
)
def test_which_task_an_object_concerns(key: str, event: str, expected: tuple[str, ...] | None) -> None:
    found = read_s3_event(json.loads(make_s3_event(key, event)), TASKS)
    assert (found.tasks if found else None) == expected


def test_many_deliveries_are_bounded(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorry_pipelines.listening.application._MOST_DELIVERIES", 2)
    codes = [send(make_s3_event(mark=str(n)), delivery=f"d{n}")[0] for n in range(3)]
    assert codes == [202, 202, 503]


def test_two_mlflow_deliveries_are_two_requests() -> None:
    document = json.loads(make_webhook())
    first, second = (read_mlflow_event(document, delivery, TASKS) for delivery in ("a", "b"))
    assert first is not None
    assert second is not None
    assert first.id != second.id


def test_requests_that_were_carried_out_long_ago_are_removed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime

    log = RequestLog(store)
    for number in range(2):
        log.enter(Request(f"{number:032x}", "s3", ("reviews",)))
    log.finish(Request(f"{0:032x}", "s3", ("reviews",)), code=0)
    log.prune()
    assert len(list(store.list_keys("requests"))) == 3
    later = datetime.fromtimestamp(time.time() + 31 * 86_400, UTC)
    monkeypatch.setattr(store, "read_clock", lambda: later)
    log.prune()
    assert list(store.list_keys("requests")) == [f"requests/{1:032x}/request.json"]
