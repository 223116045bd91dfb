"""Requests that come at the same time are answered together: a short queue, and one thread that computes."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from peftbench.serving.predictor import Answer
from peftbench.tasks.text.examples import Example

Predict = Callable[[Sequence[Example], Sequence[str]], list[Answer]]


class QueueFullError(Exception):
    """More rows or characters wait than may, or the queue takes no more: ask again later."""


@dataclass(frozen=True)
class Asked:
    """One request: its examples, the task of each, and where the answers go."""

    examples: Sequence[Example]
    tasks: Sequence[str]
    answers: "Future[list[Answer]]" = field(default_factory=Future)

    @property
    def characters(self) -> int:
        """Of all its texts together."""
        return sum(len(text) for example in self.examples for text in example)


class Gathering:
    """The queue and its thread.

    Args:
        predict: answers examples, each by its task.
        at_once: rows that are taken out of the queue together; a larger request is taken by itself.
        most: rows that may wait. most_characters: of their texts, which is what the queue holds in memory.
        taken: called with the number of rows whenever some are taken out.
    """

    def __init__(
        self, predict: Predict, at_once: int, most: int, most_characters: int, taken: Callable[[int], None]
    ) -> None:
        self._predict, self._at_once, self._taken = predict, at_once, taken
        self._most, self._most_characters = most, most_characters
        self._waiting: deque[Asked] = deque()
        self._rows, self._characters, self._closed = 0, 0, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="peftbench-serve", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return self._rows

    def ask(self, examples: Sequence[Example], tasks: Sequence[str]) -> "Future[list[Answer]]":
        """Put a request in the queue; QueueFullError where there is no room for it."""
        asked = Asked(examples, tasks)
        with self._changed:
            if self._closed:
                raise QueueFullError("the server is shutting down")
            if self._waiting:
                _check_room("rows", self._rows, len(examples), self._most)
                _check_room("characters", self._characters, asked.characters, self._most_characters)
            self._waiting.append(asked)
            self._rows += len(examples)
            self._characters += asked.characters
            self._changed.notify()
        return asked.answers

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
            self._taken(sum(len(asked.examples) for asked in together))
            try:
                _answer(self._predict, together)
            except Exception as error:
                if len(together) == 1:
                    together[0].answers.set_exception(error)
                    continue
                for asked in together:  # one of them is at fault, the others have their answers
                    try:
                        _answer(self._predict, [asked])
                    except Exception as failure:
                        asked.answers.set_exception(failure)

    def _next(self) -> list[Asked] | None:
        """Wait for requests and return as many as go together; None when the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            together: list[Asked] = []
            rows = 0
            while self._waiting and (not together or rows + len(self._waiting[0].examples) <= self._at_once):
                asked = self._waiting.popleft()
                self._rows -= len(asked.examples)
                self._characters -= asked.characters
                if asked.answers.set_running_or_notify_cancel():  # somebody still waits for it
                    together.append(asked)
                    rows += len(asked.examples)
            return together


def _check_room(of: str, waiting: int, more: int, most: int) -> None:
    if waiting + more > most:
        raise QueueFullError(f"{waiting:,} {of} wait already, at most {most:,} may: ask again later")


def _answer(predict: Predict, together: list[Asked]) -> None:
    answers = predict(
        [example for asked in together for example in asked.examples],
        [task for asked in together for task in asked.tasks],
    )
    start = 0
    for asked in together:
        asked.answers.set_result(answers[start : start + len(asked.examples)])
        start += len(asked.examples)
