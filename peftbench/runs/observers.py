"""The trainer's observers that every run has: the progress bar on the terminal, the training curve in the record."""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from peftbench.config.schema import RunConfig
from peftbench.runs.history import write_history
from peftbench.runs.lock import RunLock
from peftbench.runs.record import Record
from peftbench.terminal import console, format_metric, metric_name

# the curve is written whole each time, so that no writer can leave a part of a row
_WRITE_SECONDS = 5.0


class RecordHistory:
    """Writes the training curve into the record; raises TakenOverError where another process has taken the run over."""

    def __init__(self, record: Record, lock: RunLock) -> None:
        self._record, self._lock = record, lock
        self._rows: list[dict[str, Any]] = []
        self._written = time.monotonic()

    def on_resume(self, step: int) -> None:
        """Keep what an interrupted run wrote up to its checkpoint."""
        self._rows = [row for row in self._record.history() if row.get("step", 0) <= step]
        self.write()

    def on_steps(self, row: dict[str, Any]) -> None:
        """Take a row; it reaches the disk within seconds."""
        self._rows.append(row)
        if time.monotonic() - self._written > _WRITE_SECONDS:
            self._lock.check()
            self.write()

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Write the epoch's row and all before it."""
        self._lock.check()
        self._rows.append(row)
        self.write()

    def write(self) -> None:
        """Write the curve as far as it is known."""
        write_history(self._record.history_path, self._rows)
        self._written = time.monotonic()


class Terminal:
    """A progress bar on a terminal; a line an epoch in a pipe or a log file."""

    def __init__(self, config: RunConfig, metrics: Iterable[str], classes: int) -> None:
        self._metrics = {name: metric_name(name, classes) for name in metrics}
        self._epochs = config.trainer.epochs
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            # on a narrow terminal rich shortens columns that may wrap, first of all
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task("starting", total=None, speed="")
        self._title = f"{config.method_name} on {config.task.name}, {config.model.name}, seed {config.seed}"

    def __enter__(self) -> "Terminal":
        console.print(self._title, style="bold")
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_resume(self, step: int) -> None:
        """Say where an interrupted run goes on."""
        console.print(f"continuing behind step {step}", style="dim")
        self._progress.update(self._bar, completed=step)

    def on_steps(self, row: dict[str, Any]) -> None:
        """Move the bar."""
        self._progress.update(
            self._bar,
            description=f"epoch {row['epoch']}/{self._epochs}  loss {row['loss']:.3f}",
            completed=row["step"],
            total=row["steps"],
            speed=f"{row['examples_per_second']:.0f} examples/s",
        )

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Print the epoch's line."""
        validation = row["validation"]
        score = "  ".join(f"{shown} {format_metric(name, validation[name])}" for name, shown in self._metrics.items())
        console.print(f"epoch {row['epoch']}/{self._epochs}  loss {row['loss']:.3f}  {score}  {row['seconds']:.0f} s")
