"""An HTTP server for several tasks on one backbone (extra `serve`): JSON in, JSON out."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from peftbench.errors import UserError, first_line
from peftbench.serving.http_protocol import HttpProtocol
from peftbench.serving.multitask import MultiTask
from peftbench.serving.predictor import Answer
from peftbench.serving.request_batcher import QueueFullError, RequestBatcher
from peftbench.serving.task_names import shortened

_BYTES_A_CHARACTER = 12  # of JSON that escapes everything
_BYTES_A_ROW = 1024  # for names and punctuation
_BYTES_DROPPED = 64 * 2**20  # of one request


@dataclass(frozen=True)
class Limits:
    """What a request and the queue may hold.

    Attributes:
        rows: of one request. characters: of all texts of a request together.
        queue: rows that may wait.
        seconds: that a client may take to send its request, and to read more of its answer; then it is dropped, so
            that one that stalls does not keep the server from ending.
    """

    rows: int
    characters: int
    queue: int
    seconds: float = 10

    @property
    def queue_characters(self) -> int:
        """Characters that may wait: of as many full requests as have `queue` rows together."""
        return math.ceil(self.queue / self.rows) * self.characters


class RequestRow(BaseModel):
    """A text, or the two of a pair, and the name of the task that answers it."""

    model_config = ConfigDict(extra="forbid")
    task: str
    text: str | list[str]


class PredictRequest(BaseModel):
    """The body of a request to /predict."""

    model_config = ConfigDict(extra="forbid")
    rows: list[RequestRow]


class _Metrics:
    def __init__(self, waiting: Any) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "peftbench_requests", "Requests answered, by HTTP status.", ["status"], registry=self.registry
        )
        self.rows = Counter("peftbench_rows", "Rows answered, by task.", ["task"], registry=self.registry)
        self.seconds = Histogram(
            "peftbench_request_seconds", "From a request's arrival to its answer.", registry=self.registry
        )
        self.together = Histogram(
            "peftbench_batch_rows",
            "Rows that were answered together.",
            buckets=[2**power for power in range(11)],
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "peftbench_requests_in_progress", "Requests that have come and are not answered.", registry=self.registry
        )
        gauge = Gauge("peftbench_queue_rows", "Rows that wait.", registry=self.registry)
        gauge.set_function(waiting)


def make_server(tasks: MultiTask, limits: Limits) -> uvicorn.Server:
    """Return the server of `make_app`'s application; whoever runs it gives it its sockets."""
    protocol: Any = partial(HttpProtocol, seconds=limits.seconds)
    return uvicorn.Server(uvicorn.Config(make_app(tasks, limits), http=protocol, ws="none", log_level="warning"))


def make_app(tasks: MultiTask, limits: Limits) -> FastAPI:
    """Return the server's application; its queue ends, with all that waits answered, when the application does."""
    batcher = RequestBatcher(
        tasks.predict,
        tasks.batch_size,
        limits.queue,
        limits.queue_characters,
        lambda rows: metrics.together.observe(rows),
    )
    metrics = _Metrics(lambda: batcher.waiting)

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPI(title="peftbench", lifespan=living, docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        with metrics.in_progress.track_inprogress():
            return await answer(request)

    async def answer(request: Request) -> Response:
        start = time.perf_counter()
        try:
            predict_request = await _read(request, limits)
            texts = [row.text for row in predict_request.rows]
            names = [row.task for row in predict_request.rows]
            examples = _examples(tasks, texts, names)
            answers = await asyncio.wrap_future(batcher.ask(examples, names)) if examples else []
        except _RefusedError as error:
            return refuse(error.status, str(error))
        except QueueFullError as error:
            return refuse(503, str(error))
        except Exception as error:  # one request's failure is its own
            return refuse(500, first_line(error))
        seconds = time.perf_counter() - start
        metrics.seconds.observe(seconds)
        for name in names:
            metrics.rows.labels(name).inc()
        metrics.requests.labels("200").inc()
        answers_json = [
            _answer_json(name, answer, tasks.labels(name)) for name, answer in zip(names, answers, strict=True)
        ]
        return JSONResponse({"answers": answers_json, "seconds": seconds})

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "tasks": list(tasks.tasks)}

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(HTTPException)
    async def explain(request: Request, error: HTTPException) -> Response:
        with suppress(_RefusedError):
            await _body(request, 0, limits.seconds)
        asked = shortened(f"{request.method} {request.url.path}")
        return JSONResponse({"error": f"{asked}: {error.detail}"}, error.status_code)

    def refuse(status: int, reason: str) -> Response:
        metrics.requests.labels(str(status)).inc()
        later = {"Retry-After": "1"} if status == 503 else None
        return JSONResponse({"error": reason}, status, headers=later)

    return app


def _examples(tasks: MultiTask, texts: list[Any], names: list[str]) -> list[Any]:
    try:
        return tasks.examples(texts, names)
    except UserError as error:  # behind this it is not the request's fault
        raise _RefusedError(422, str(error)) from error


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def _read(request: Request, limits: Limits) -> PredictRequest:
    """Read a request's body as far as it may go, and check its form and size."""
    most = _BYTES_A_CHARACTER * limits.characters + _BYTES_A_ROW * limits.rows
    body = await _body(request, most, limits.seconds)
    try:
        predict_request = PredictRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = shortened(".".join(map(str, first["loc"])))
        raise _RefusedError(422, f"{where or 'the body'}: {first['msg']}") from None
    if len(predict_request.rows) > limits.rows:
        raise _RefusedError(413, f"{len(predict_request.rows):,} rows, at most {limits.rows:,} may come in one request")
    characters = sum(len(text) for row in predict_request.rows for text in row.text)
    if characters > limits.characters:
        raise _RefusedError(413, f"{characters:,} characters, at most {limits.characters:,} may come in one request")
    return predict_request


async def _body(request: Request, most: int, seconds: float) -> bytes:
    """Return a request's body; _RefusedError where it has more than `most` bytes, or does not come in time.

    What is over is read and dropped: a connection that is closed while it still comes takes the answer with it.
    """
    body, come = bytearray(), 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                come += len(part)
                if come <= most:
                    body += part
                elif come > most + _BYTES_DROPPED:
                    break
    except ClientDisconnect:
        raise _RefusedError(400, "the connection ended before the request was whole") from None
    except TimeoutError:
        if come <= most:
            raise _RefusedError(408, f"the request did not come whole within {seconds:g} s: send it again") from None
    if come > most:
        raise _RefusedError(413, f"the request is larger than {most:,} bytes: send fewer rows at a time")
    return bytes(body)


def _answer_json(task: str, answer: Answer, labels: Sequence[str]) -> dict[str, Any]:
    """Return an answer as JSON: a label with the probabilities of all, or a score of no labels; null without text."""
    if not labels:
        return {"task": task, "score": answer.prediction}
    return {"task": task, "label": answer.prediction, "probabilities": answer.probabilities}
