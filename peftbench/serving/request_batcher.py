"""Requests that come at the same time are answered in one batch: a queue, and one thread that computes."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from peftbench.serving.predictor import Answer
from peftbench.tasks.text.examples import Example

Predict = Callable[[Sequence[Example], Sequence[str]], list[Answer]]


class QueueFullError(Exception):
    """The queue is full or closed: more rows or characters would wait than may."""


@dataclass(frozen=True)
class PendingRequest:
    """One request: its examples, the task of each, and where the answers go."""

    examples: Sequence[Example]
    tasks: Sequence[str]
    answers: "Future[list[Answer]]" = field(default_factory=Future)

    @property
    def characters(self) -> int:
        """How many all its texts have together."""
        return sum(len(text) for example in self.examples for text in example)


class RequestBatcher:
    """A queue of requests, and the thread that takes as many out of it as fit into one batch and answers them.

    Args:
        predict: answers a batch: examples, and the name of each one's task.
        at_once: rows of one batch, at most; a larger request is a batch by itself.
        most: rows that may wait. most_characters: characters of all texts that may wait, which bounds the memory.
        taken: called with the number of rows of each batch.
    """

    def __init__(
        self, predict: Predict, at_once: int, most: int, most_characters: int, taken: Callable[[int], None]
    ) -> None:
        self._predict, self._at_once, self._taken = predict, at_once, taken
        self._most, self._most_characters = most, most_characters
        self._waiting: deque[PendingRequest] = deque()
        self._rows, self._characters, self._closed = 0, 0, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="peftbench-serve", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return self._rows

    def ask(self, examples: Sequence[Example], tasks: Sequence[str]) -> "Future[list[Answer]]":
        """Put a request in the queue and return the future of its answers; QueueFullError where there is no room."""
        request = PendingRequest(examples, tasks)
        with self._changed:
            if self._closed:
                raise QueueFullError("the server is shutting down")
            if self._waiting:
                _check_room("rows", self._rows, len(examples), self._most)
                _check_room("characters", self._characters, request.characters, self._most_characters)
            self._waiting.append(request)
            self._rows += len(examples)
            self._characters += request.characters
            self._changed.notify()
        return request.answers

    def close(self) -> None:
        """Answer what waits, take no more, and return when the thread has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (together := self._next()) is not None:
            if not together:
                continue
            self._taken(sum(len(request.examples) for request in together))
            try:
                _answer(self._predict, together)
            except Exception as error:
                if len(together) == 1:
                    together[0].answers.set_exception(error)
                    continue
                for request in together:  # one of them is at fault, the others have their answers
                    try:
                        _answer(self._predict, [request])
                    except Exception as failure:
                        request.answers.set_exception(failure)

    def _next(self) -> list[PendingRequest] | None:
        """Wait for requests and return those of one batch; None when the queue is closed and empty.

        The list is empty where nobody waits any more for what was in the queue.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            together: list[PendingRequest] = []
            rows = 0
            while self._waiting and (not together or rows + len(self._waiting[0].examples) <= self._at_once):
                request = self._waiting.popleft()
                self._rows -= len(request.examples)
                self._characters -= request.characters
                if request.answers.set_running_or_notify_cancel():  # somebody still waits for it
                    together.append(request)
                    rows += len(request.examples)
            return together


def _check_room(of: str, waiting: int, more: int, most: int) -> None:
    if waiting + more > most:
        raise QueueFullError(f"{waiting:,} {of} wait already, at most {most:,} may: ask again later")


def _answer(predict: Predict, together: list[PendingRequest]) -> None:
    answers = predict(
        [example for request in together for example in request.examples],
        [task for request in together for task in request.tasks],
    )
    start = 0
    for request in together:
        request.answers.set_result(answers[start : start + len(request.examples)])
        start += len(request.examples)
