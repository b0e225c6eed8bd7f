"""The HTTP server: uvicorn, which cuts off clients that do not finish the headers of a request."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from lorry_components.serving.requests import Limits
from lorry_registry.errors import UsageError

_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address; who connects before anything is served waits.

    Args:
        host: The address.
        port: The port; 0: a free one.

    Raises:
        UsageError: The address cannot be taken.
    """
    where = format_address(host, port)
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        todo = "give another address: --host, --port (--port 0 takes a free one)"
        raise UsageError(f"the address cannot be taken: {reason}", where=where, todo=todo) from error
    # Connections have it from here: asyncio sets it only where it made the socket. Without it the body of
    # each answer waits 40 ms for the client to acknowledge the headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def format_address(host: str, port: int) -> str:
    """Return an address as an URL has it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()


def run_server(
    application: Starlette,
    *,
    listener: socket.socket,
    grace: int,
    limits: Limits,
    announce: Callable[[], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that are being answered are finished within a time.

    Args:
        application: What answers.
        listener: Where requests arrive.
        grace: For how many seconds requests are finished.
        limits: How large a request may be, and how long it may take to arrive.
        announce: Called when requests are answered.
    """
    config = uvicorn.Config(
        _answer_cut_off(application),
        loop="asyncio",
        http=build_protocol(limits),
        ws="none",
        backlog=_BACKLOG,
        timeout_graceful_shutdown=grace,
        access_log=False,
        log_level="warning",
        server_header=False,
    )
    _Server(config, announce).run([listener])


def _answer_cut_off(application: ASGIApp) -> ASGIApp:
    """Let requests that are cut off when the grace is over be answered 503."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await application(scope, receive, send)
        except asyncio.CancelledError:
            if scope["type"] != "http":
                raise
            response = JSONResponse({"error": "the server ends; try again"}, 503, {"Connection": "close"})
            await response(scope, receive, send)

    return call


def build_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with a limit on the time that the headers of a request take."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.cut_off = self.loop.call_later(limits.seconds, self._cut_off)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            # The timer starts with the first bytes of a request and ends with its headers.
            is_reading = self.cycle is None or self.cycle.response_complete
            if not is_reading:
                self.cut_off.cancel()
            elif self.cut_off.cancelled():
                self.cut_off = self.loop.call_later(limits.seconds, self._cut_off)

        def connection_lost(self, exc: Exception | None) -> None:
            self.cut_off.cancel()
            super().connection_lost(exc)

        def _cut_off(self) -> None:
            self.transport.close()

    return Protocol
