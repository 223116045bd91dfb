"""Why one of several processes left the run that they train together; without it the others see their group break."""

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from peftbench.errors import PeftbenchError, UserError, first_line
from peftbench.interruption import check_interrupted
from peftbench.out_of_memory import is_out_of_memory


class EndedElsewhereError(Exception):
    """Another process ended the run, and the first one says why; this one has nothing to add."""


class Ending:
    """Tells through torch's `store` why a process leaves the run; the first that leaves is heard.

    `key`: of this run alone. rank: of this process among `count`.
    """

    def __init__(self, store: Any, key: str, rank: int, count: int) -> None:
        self._store, self._key, self._rank, self._count = store, key, rank, count

    def announce(self, error: BaseException) -> None:
        """Announce to the others that this process leaves because of `error`."""
        if isinstance(error, EndedElsewhereError):
            return
        announced = {
            "rank": self._rank,
            "kind": _kind(error),
            "reason": first_line(error),
            "trace": "".join(traceback.format_exception(error)),
        }
        with suppress(RuntimeError):  # the first process is gone, and with it the store
            self._store.compare_set(self._key, "", json.dumps(announced))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Where what the processes do together fails in the block because one has left, raise why.

        The first process raises an error of the kind that was announced, the others EndedElsewhereError, all of them
        KeyboardInterrupt where one was interrupted. Where nothing was announced the error comes through.
        """
        try:
            yield
        except RuntimeError as error:
            announced = self._announced()
            if announced is None:
                check_interrupted()  # another process has stopped for the same signal
                raise
            if announced["kind"] == "interrupted":
                raise KeyboardInterrupt from error
            raise (EndedElsewhereError() if self._rank else self._raised(announced)) from error

    def _announced(self) -> dict[str, Any] | None:
        with suppress(RuntimeError):
            if self._store.check([self._key]):
                announced: dict[str, Any] = json.loads(self._store.get(self._key))
                return announced
        return None

    def _raised(self, announced: dict[str, Any]) -> Exception:
        kinds = {"mistake": UserError, "failure": PeftbenchError, "memory": torch.OutOfMemoryError}
        error: Exception = kinds.get(announced["kind"], RuntimeError)(
            f"process {announced['rank']} of {self._count}: {announced['reason']}"
        )
        error.add_note(announced["trace"])  # which the run's log shows
        return error


def _kind(error: BaseException) -> str:
    if not isinstance(error, Exception):
        return "interrupted"
    if isinstance(error, PeftbenchError):
        return "mistake" if isinstance(error, UserError) else "failure"
    return "memory" if is_out_of_memory(error) else "unforeseen"
