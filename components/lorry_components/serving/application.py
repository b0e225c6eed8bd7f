"""The HTTP application: the Open Inference Protocol, and a plain way to predict."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lorry_components.data.rows import join_prediction
from lorry_components.serving.batching import Batcher, QueueFullError
from lorry_components.serving.catalogue import Catalogue, ServedVersion
from lorry_components.serving.metrics import Entry, Metrics, RequestWatch, note_rows, note_version
from lorry_components.serving.open_inference import describe_version, read_request, write_response
from lorry_components.serving.openapi import describe_routes
from lorry_components.serving.requests import Limits, check_rows, parse_json, read_inputs
from lorry_components.serving.tokens import Grant, find_grant
from lorry_components.task_types import Prediction, Row
from lorry_registry.errors import InvalidDataError, LorryError, NotFoundError, UsageError

_RETRY_SECONDS = 1
_BINARY = "inference-header-content-length"
# The headers that name what answered.
_VERSION, _ADAPTER = "Lorry-Version", "Lorry-Adapter"
_EVERYTHING = Grant("", None)


class _TooLargeError(Exception):
    """The body of a request is larger than it may be."""


class _ForbiddenError(Exception):
    """A request has no token, or one that is not for what it asks for."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Service:
    """Answers requests.

    Args:
        catalogue: What is served.
        batcher: Computes predictions.
        limits: How large a request may be.
        version: The version of Lorry.
        grants: What each token allows; None: no token is asked for.
        poll: After how many seconds the ledger is read again; None: never.
        log: Called with an entry for each request.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        batcher: Batcher,
        limits: Limits,
        version: str,
        *,
        grants: Sequence[Grant] | None = None,
        poll: float | None = None,
        log: Callable[[Entry], None] | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._batcher = batcher
        self._limits = limits
        self._version = version
        self._grants = grants
        self._poll = poll
        self._log = log
        self._metrics = Metrics(catalogue, batcher)

    def build_application(self) -> Starlette:
        """Return the ASGI application."""
        model = "/v2/models/{task}"
        numbered = f"{model}/versions/{{version:int}}"
        routes = [
            Route("/openapi.json", self._describe_api),
            Route("/v2", self._describe_server),
            Route("/v2/health/live", self._confirm),
            Route("/v2/health/ready", self._confirm_ready),
            Route("/metrics", self._write_metrics),
            Route("/tasks", self._list_tasks),
            Route("/tasks/{task}/predict", self._predict, methods=["POST"]),
        ]
        for place in (model, numbered):
            routes += [
                Route(place, self._describe_model),
                Route(f"{place}/ready", self._confirm_model),
                Route(f"{place}/infer", self._infer, methods=["POST"]),
            ]
        handlers: dict[Any, Callable[[Request, Any], Awaitable[Response]]] = {
            HTTPException: _answer_unknown_route,
            LorryError: _answer_error,
            QueueFullError: _answer_full_queue,
            TimeoutError: _answer_timeout,
            ClientDisconnect: _answer_timeout,
            _TooLargeError: _answer_too_large,
            _ForbiddenError: _answer_forbidden,
        }
        watch = Middleware(RequestWatch, metrics=self._metrics, log=self._log)
        application = Starlette(
            routes=routes, exception_handlers=handlers, lifespan=self._run, middleware=[watch]
        )
        # A redirection would repeat the name of a host that the client chose.
        application.router.redirect_slashes = False
        return application

    @contextlib.asynccontextmanager
    async def _run(self, _application: Starlette) -> AsyncIterator[None]:
        running = [asyncio.create_task(self._batcher.run())]
        if self._poll is not None:
            running.append(asyncio.create_task(self._follow_ledger(self._poll)))
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _follow_ledger(self, seconds: float) -> None:
        # A thread of its own: batches are computed while an adapter is loaded, and the end waits for none.
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        try:
            while True:
                await asyncio.sleep(seconds)
                await asyncio.get_running_loop().run_in_executor(thread, self._catalogue.refresh)
        finally:
            thread.shutdown(wait=False)

    async def _describe_api(self, _request: Request) -> Response:
        return JSONResponse(describe_routes(self._version, self._limits))

    async def _describe_server(self, _request: Request) -> Response:
        return JSONResponse({"name": "lorry", "version": self._version, "extensions": []})

    async def _confirm(self, _request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _confirm_ready(self, _request: Request) -> Response:
        is_ready = bool(self._catalogue.versions)
        return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 503)

    async def _write_metrics(self, request: Request) -> Response:
        # They name all tasks.
        if self._admit(request).tasks is not None:
            raise _ForbiddenError(403, "the token is not for all tasks")
        return Response(self._metrics.write(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def _list_tasks(self, request: Request) -> Response:
        allows = self._admit(request).allows
        served = sorted(self._catalogue.versions.values(), key=lambda each: each.task)
        tasks = [_name_version(each) for each in served if allows(each.task)]
        refused = {
            task: str(error) for task, error in sorted(self._catalogue.refused.items()) if allows(task)
        }
        return JSONResponse({"tasks": tasks, "refused": refused})

    async def _describe_model(self, request: Request) -> Response:
        return JSONResponse(describe_version(self._find(request)))

    async def _confirm_model(self, request: Request) -> Response:
        try:
            served = self._find(request)
        except NotFoundError:
            raise
        except LorryError as error:
            return JSONResponse({"ready": False, "error": str(error)}, status_code=503)
        fault = self._catalogue.refused.get(served.task)
        refused = {} if fault is None else {"refused": str(fault)}
        return JSONResponse({"ready": True, **_name_version(served), **refused})

    async def _infer(self, request: Request) -> Response:
        served = self._find(request)
        body = await self._read_body(request)
        length = request.headers.get(_BINARY, str(len(body)))
        if not length.isdecimal() or int(length) > len(body):
            raise UsageError("is not within the body", where=_BINARY, todo="correct it")
        document = parse_json(body[: int(length)])
        rows = read_request(document, body[int(length) :], served.fields)
        note_rows(request, len(rows))
        predictions = await self._compute(served, rows)
        request_id = document.get("id")
        named = request_id if isinstance(request_id, str) else None
        return _answer(served, write_response(served, predictions, named))

    async def _predict(self, request: Request) -> Response:
        served = self._find(request)
        rows = read_inputs(parse_json(await self._read_body(request)), served.fields)
        note_rows(request, len(rows))
        predictions = await self._compute(served, rows)
        return _answer(served, [join_prediction(*pair) for pair in zip(rows, predictions, strict=True)])

    def _find(self, request: Request) -> ServedVersion:
        task = request.path_params["task"]
        grant = self._admit(request)
        if not grant.allows(task):
            # Whether there is such a task is not said.
            raise _ForbiddenError(403, "the token is not for this task")
        served = self._catalogue.find(task, request.path_params.get("version"), allows=grant.allows)
        note_version(request, served)
        return served

    def _admit(self, request: Request) -> Grant:
        """Return what the token of a request allows.

        Raises:
            _ForbiddenError: It has none, or an unknown one.
        """
        if self._grants is None:
            return _EVERYTHING
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        grant = find_grant(self._grants, token.strip())
        if scheme.lower() != "bearer" or grant is None:
            raise _ForbiddenError(401, "send a token: Authorization: Bearer TOKEN")
        return grant

    async def _read_body(self, request: Request) -> bytes:
        body = bytearray()
        async with asyncio.timeout(self._limits.seconds):
            async for part in request.stream():
                body += part
                if len(body) > self._limits.body_bytes:
                    raise _TooLargeError
        return bytes(body)

    async def _compute(self, served: ServedVersion, rows: Sequence[Row]) -> list[Prediction]:
        check_rows(rows, self._limits)
        return await self._batcher.predict(served, rows)


def _name_version(served: ServedVersion) -> dict[str, Any]:
    return {"task": served.task, "version": served.version, "adapter": served.adapter_id}


def _answer(served: ServedVersion, document: Any) -> Response:
    named = {_VERSION: str(served.version), _ADAPTER: served.adapter_id}
    return JSONResponse(document, headers=named)


async def _answer_error(_request: Request, error: Any) -> Response:
    status = 400 if isinstance(error, UsageError | InvalidDataError) else 503
    if isinstance(error, NotFoundError):
        status = 404
    return JSONResponse({"error": str(error)}, status_code=status)


async def _answer_unknown_route(_request: Request, error: Any) -> Response:
    return JSONResponse(
        {"error": "no such route; /openapi.json has them"},
        status_code=error.status_code,
        headers=error.headers,
    )


async def _answer_forbidden(_request: Request, error: Any) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    return JSONResponse({"error": str(error)}, status_code=error.status, headers=headers)


async def _answer_full_queue(_request: Request, _error: Any) -> Response:
    headers = {"Retry-After": str(_RETRY_SECONDS)}
    return JSONResponse({"error": "too many rows are waiting; try again"}, status_code=503, headers=headers)


async def _answer_timeout(_request: Request, _error: Any) -> Response:
    headers = {"Connection": "close"}
    return JSONResponse({"error": "the body took too long to arrive"}, status_code=408, headers=headers)


async def _answer_too_large(_request: Request, _error: Any) -> Response:
    headers = {"Connection": "close"}
    return JSONResponse({"error": "the body is too large"}, status_code=413, headers=headers)
