"""The server: Starlette's, which is what MLflow's own is made with."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lorry_pipelines.listening.events import Request, read_mlflow_event, read_s3_event
from lorry_pipelines.listening.requests import RequestLog
from lorry_pipelines.listening.signatures import MOST_SECONDS_OLD, Delivery, check_delivery
from lorry_registry.errors import LorryError
from lorry_registry.task_spec import TaskSpec

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response

MOST_BODY_BYTES = 256 << 10
_MOST_DELIVERIES = 10_000
_BODY_SECONDS = 10.0


class Refusal(Exception):  # noqa: N818 - an answer, and no defect
    """Why a delivery is not taken, as the sender is told.

    Args:
        code: The status of the answer.
        why: In a few words.
    """

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass(slots=True)
class Seen:
    """The deliveries of the last minutes, so that one that is sent again does nothing.

    Attributes:
        moments: Id -> when it came, in seconds since 1970.
    """

    moments: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def add(self, delivery: Delivery, *, now: float) -> bool:
        """Note a delivery; return whether it is a new one.

        Raises:
            Refusal: There are more than can be remembered.
        """
        # One that is older than this is too old for its signature as well.
        while self.moments and now - next(iter(self.moments.values())) > 2 * MOST_SECONDS_OLD:
            self.moments.popitem(last=False)
        if delivery.id in self.moments:
            return False
        if len(self.moments) >= _MOST_DELIVERIES:
            raise Refusal(503, "too many deliveries, try again later")
        self.moments[delivery.id] = now
        return True

    def remove(self, delivery: Delivery) -> None:
        """Forget a delivery that could not be taken, so that the sender may try again."""
        self.moments.pop(delivery.id, None)


Read = Callable[[Any, Delivery], Request | None]


@dataclass(frozen=True, slots=True)
class Receiver:
    """Takes deliveries.

    Attributes:
        log: Where requests are kept.
        secret: What senders sign with.
        wake: Called when there is a new request.
        read_time: Returns the time in seconds since 1970.
        seen: What came lately.
    """

    log: RequestLog
    secret: str
    wake: Callable[[], None]
    read_time: Callable[[], float]
    seen: Seen = field(default_factory=Seen)

    def take(self, headers: Mapping[str, str], body: bytes, read: Read) -> tuple[int, dict[str, Any]]:
        """Return the status and the content of the answer to a delivery.

        Args:
            headers: The request's, by names in lower case.
            body: The request's body.
            read: Returns what a document asks for.

        Raises:
            Refusal: It is not taken.
        """
        now = self.read_time()
        delivery = check_delivery(self.secret, headers, body, now=now)
        if delivery is None:
            raise Refusal(401, "not signed with the secret, or too old")
        if not self.seen.add(delivery, now=now):
            return 200, {"state": "known"}
        try:
            asked = read(json.loads(body), delivery)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, f"no event: {str(error)[:200]}") from error
        if asked is None:
            return 200, {"state": "concerns no task"}
        try:
            is_new = self.log.enter(asked)
        except LorryError as error:
            self.seen.remove(delivery)
            raise Refusal(503, "the store cannot be written, try again later") from error
        if is_new:
            self.wake()
        return (202 if is_new else 200), {"state": "asked" if is_new else "known", "tasks": list(asked.tasks)}


def build_application(tasks: Collection[TaskSpec], receiver: Receiver) -> "Starlette":
    """Return the application: ``POST /s3`` and ``POST /mlflow``, and ``GET /health``.

    Args:
        tasks: The tasks that events may concern.
        receiver: What takes the deliveries.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def receive(request: "HttpRequest", read: Read) -> "Response":
        try:
            body = await _read_body(request)
            headers = {name.lower(): value for name, value in request.headers.items()}
            code, content = await run_in_threadpool(receiver.take, headers, body, read)
        except Refusal as refusal:
            code, content = refusal.code, {"error": str(refusal)}
        return JSONResponse(content, status_code=code)

    async def receive_s3(request: "HttpRequest") -> "Response":
        return await receive(request, lambda document, _: read_s3_event(document, tasks))

    async def receive_mlflow(request: "HttpRequest") -> "Response":
        return await receive(
            request, lambda document, delivery: read_mlflow_event(document, delivery.id, tasks)
        )

    async def tell_health(_request: "HttpRequest") -> "Response":
        return JSONResponse({"state": "listening"})

    return Starlette(
        routes=[
            Route("/s3", receive_s3, methods=["POST"]),
            Route("/mlflow", receive_mlflow, methods=["POST"]),
            Route("/health", tell_health, methods=["GET"]),
        ]
    )


async def _read_body(request: "HttpRequest") -> bytes:
    """Return the body.

    Raises:
        Refusal: It is larger than an event is, or does not come.
    """

    async def read() -> bytes:
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > MOST_BODY_BYTES:
                raise Refusal(413, "too large")
        return bytes(content)

    try:
        return await asyncio.wait_for(read(), _BODY_SECONDS)
    except TimeoutError as error:
        raise Refusal(408, "too slow") from error
