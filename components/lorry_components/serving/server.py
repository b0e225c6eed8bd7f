"""The HTTP server: uvicorn, which cuts off clients that do not finish the headers of a request."""

import asyncio
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from lorry_components.serving.requests import Limits


def run_server(application: Starlette, *, host: str, port: int, grace: int, limits: Limits) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that are being answered are finished within a time.

    Args:
        application: What answers.
        host: The address to listen at.
        port: The port.
        grace: For how many seconds requests are finished.
        limits: How large a request may be, and how long it may take to arrive.
    """
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        loop="asyncio",
        http=build_protocol(limits),
        ws="none",
        timeout_graceful_shutdown=grace,
        access_log=False,
        log_level="warning",
        server_header=False,
    )
    uvicorn.Server(config).run()


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
