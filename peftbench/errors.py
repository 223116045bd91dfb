"""The errors a user sees: one line that says what, where and what to do; no traceback."""

import difflib
from collections.abc import Iterable

INTERRUPTED = 130  # exit code of a command that was stopped by Ctrl-C or SIGTERM


class PeftbenchError(Exception):
    """A run failed: the command prints the message and exits with 1."""

    exit_code = 1


class UserError(PeftbenchError):
    """The user's mistake (a bad value, a missing file): the command exits with 2."""

    exit_code = 2


class LostRunError(PeftbenchError):
    """The process of a run ended without a word: it was killed, or its machine was lost."""


class TakenOverError(PeftbenchError):
    """Another process took the run over: this one writes and deletes nothing of it any more."""


class NonFiniteError(PeftbenchError):
    """The loss, a trained tensor or the model's outputs became NaN or infinite."""


def without_traceback(error: PeftbenchError) -> PeftbenchError:
    """Return an error without its traceback and causes: they hold frames, and so tensors of the failed step."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def nearest(word: str, choices: Iterable[str], most: int = 3) -> str:
    """Return `` Did you mean …?`` for the closest of `choices`, or all of them where none is close."""
    names = sorted(choices)
    close = difflib.get_close_matches(word, names, n=most, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Choose from: {', '.join(names)}." if names else ""
