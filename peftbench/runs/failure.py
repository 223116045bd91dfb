"""How a run that ends badly is recorded."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from peftbench.errors import PeftbenchError, TakenOverError, UserError, first_line
from peftbench.files import atomic_write
from peftbench.runs.lock import RunLock
from peftbench.runs.record import Record
from peftbench.runs.report import report_interrupted
from peftbench.runs.result import Status
from peftbench.terminal import print_error

_OOM_HINT = "lower trainer.batch_size (trainer.accumulate keeps the effective size) or task.max_length"
_OOM_WHILE_PREPARING = "there is no room for the model and the data: take a smaller model or end other programs"


@contextmanager
def preparing_recorded(record: Record, config: Mapping[str, Any], overrides: Sequence[str]) -> Iterator[None]:
    """Where an unforeseen error ends the block, begin the record if there is none, and record it as `failure_recorded`.

    The user's mistakes leave no record.
    """
    try:
        yield
    except PeftbenchError:
        raise
    except Exception as error:
        with RunLock(record.folder):
            if not record.result_path.exists():
                Record.create(record.folder, config, overrides)
            with failure_recorded(record, _OOM_WHILE_PREPARING):
                raise error


@contextmanager
def failure_recorded(record: Record, hint: str = _OOM_HINT) -> Iterator[None]:
    """Write into the record why the block ended with an error, and the traceback of an unforeseen one into train.log.

    The error is raised again, an unforeseen one as PeftbenchError. A run that had finished stays finished. A process
    that has lost the run's lock writes nothing. `hint` says what to do where memory ran out.
    """
    from peftbench.out_of_memory import is_out_of_memory

    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # rich exits where the reader of its output has gone
        _record_failure(record, Status.INTERRUPTED, f"interrupted; {_what_is_kept(record)}")
        raise
    except TakenOverError:
        raise
    except PeftbenchError as error:
        _record_failure(record, Status.FAILED, str(error))
        raise
    except Exception as error:
        if is_out_of_memory(error):
            status, reason = Status.OOM, f"out of memory: {hint} ({first_line(error)})"
        else:
            status, reason = Status.FAILED, f"{type(error).__name__}: {first_line(error)} (see {record.log_path})"
        _record_failure(record, status, reason, traceback.format_exc())
        raise PeftbenchError(reason) from error


def _what_is_kept(record: Record) -> str:
    with suppress(UserError):
        if record.read().status == Status.FINISHED:
            return "what was trained is recorded, the same command measures the rest"
    return "continue with the same command" if record.checkpoint_path.exists() else "no epoch was complete"


def add_to_log(record: Record, text: str) -> None:
    """Add to the run's log."""
    before = ""
    with suppress(OSError):
        before = record.log_path.read_text(encoding="utf-8", errors="replace")
    with atomic_write(record.log_path) as log:
        log.write(before + text)


def _record_failure(record: Record, status: Status, reason: str, details: str = "") -> None:
    try:
        if details:
            add_to_log(record, details)
        if record.read().status != Status.FINISHED:
            record.fail(status, reason)
        if status == Status.INTERRUPTED:
            report_interrupted(record, reason)
    except (TakenOverError, UserError, OSError) as second:  # a full disk cannot take the record of its own failure
        print_error(second)
