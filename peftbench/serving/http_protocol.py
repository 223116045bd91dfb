"""What a connection of the HTTP server does outside the application: of answers nobody reads and broken requests."""

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class HttpProtocol(H11Protocol):
    """Drops a client that takes nothing of its answer for `seconds`, and says in JSON what is no HTTP request."""

    def __init__(self, *arguments: Any, seconds: float, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._seconds = seconds
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Be told of every byte that cannot be sent at once: a transport that closes waits for the last of them."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)

    def pause_writing(self) -> None:
        """Begin to watch whether the client reads."""
        super().pause_writing()
        self._await_reading(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """All is sent."""
        self._stop_watching()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Watch no longer."""
        self._stop_watching()
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

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP request."""
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
