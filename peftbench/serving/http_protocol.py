"""What the HTTP server does with a connection besides the application: clients that stall, requests that are none."""

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class HttpProtocol(H11Protocol):
    """Drops a client that for `seconds` takes nothing of its answer or does not end its request's head.

    What is no HTTP request is said in JSON.
    """

    def __init__(self, *arguments: Any, seconds: float, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._seconds = seconds
        self._watch: asyncio.TimerHandle | None = None
        self._head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Have `pause_writing` called as soon as a byte cannot be sent at once, and wait for the first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # a transport that closes waits for its last bytes too
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Stop the timer once a request's head is whole, start it with the next; the application times the body."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_awaiting_head()
        elif self._head is None:
            self._await_head()

    def pause_writing(self) -> None:
        """Begin to watch whether the client reads."""
        super().pause_writing()
        self._await_reading(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Stop watching: all is sent."""
        self._stop_watching()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._stop_watching()
        self._stop_awaiting_head()
        super().connection_lost(exc)

    def _await_reading(self, unsent: int) -> None:
        self._watch = self.loop.call_later(self._seconds, self._check_reading, unsent)

    def _check_reading(self, unsent: int) -> None:
        now = self.transport.get_write_buffer_size()
        if now >= unsent:
            self.transport.abort()
        else:
            self._await_reading(now)

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _await_head(self) -> None:
        self._head = self.loop.call_later(self._seconds, self.transport.close)

    def _stop_awaiting_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing where a client asks for a WebSocket: it reads that there is none."""

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request with status 400 and the reason as JSON."""
        body = json.dumps({"error": msg}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
