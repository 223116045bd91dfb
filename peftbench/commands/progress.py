"""What `peftbench train` shows while it runs and when it is done."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from peftbench import cli
from peftbench.config import RunConfig
from peftbench.records.lock import RunLock
from peftbench.records.record import Record

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 10_000  # a pipe or a log file folds no line
_errors = Console(stderr=True, highlight=False, soft_wrap=True)

# how each metric is written: its name, and whether as a percentage
_METRICS = {
    "accuracy": ("accuracy", "%"),
    "f1": ("F1", "%"),
    "matthews": ("Matthews", ""),
    "pearson": ("Pearson", ""),
    "spearman": ("Spearman", ""),
}


def since_start(moment: float | None) -> float | None:
    """Return the seconds from the start of this process to `moment` (of `time.time`)."""
    return None if moment is None else moment - cli.STARTED


def tell_job(number: int, overrides: list[str]) -> None:
    """Head one run of a multirun."""
    console.print(f"\n[bold]run {number}[/bold]  {escape(' '.join(overrides))}")


def working(what: str) -> AbstractContextManager[Any]:
    """Show on a terminal what takes its time inside the block."""
    return console.status(what) if console.is_terminal else nullcontext()


def tell_error(error: Exception) -> None:
    """Print an error's one line."""
    _errors.print(f"peftbench: {error}", markup=False)


def tell_finished(record: Record) -> None:
    """Say that a run was there already."""
    console.print("this run is finished already; force=true trains it again", style="dim")
    tell_result(record)


def tell_interrupted(record: Record) -> None:
    """Say what is left of an interrupted run."""
    _errors.print(f"peftbench: {record.read()['error']}; record {record.folder}", markup=False)


def format_metric(name: str, value: float | None) -> str:
    """Write a metric as its readers do: accuracy and F1 in percent, correlations as they are."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if _METRICS.get(name, ("", ""))[1] else f"{value:.3f}"


def metric_name(metric: str) -> str:
    """Return the name that readers know a metric by."""
    return _METRICS.get(metric, (metric, ""))[0]


def tell_result(record: Record) -> None:
    """Print a finished run's scores, parameter share, latency, time, memory and where its record lies."""
    result = record.read()
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for split, metrics in result["metrics"].items():
        for name, value in metrics.items():
            if name != "loss":
                count = f"[dim]{split}, {result['examples'][split]:,} examples[/dim]"
                table.add_row(metric_name(name), f"[bold]{format_metric(name, value)}[/bold]  {count}")
    counts = result["parameters"]
    table.add_row(
        "trained",
        f"{counts['method']:,} parameters, {100 * counts['share_method']:.3g} % of the backbone's"
        f" {counts['backbone']:,}; head {counts['head']:,}",
    )
    for setting in (result["latency"] or {}).get("settings", []):
        table.add_row("latency", format_latency(setting))
    times = result["time"]
    table.add_row(
        "time",
        f"{times['train']:.0f} s training ({times['examples_per_second']:.0f} examples/s),"
        f" {times['total']:.0f} s in all",
    )
    if memory := _memory(result["memory"]):
        table.add_row("memory", memory)
    table.add_row("record", str(record.folder))
    console.print(table)


def format_latency(setting: dict[str, Any]) -> str:
    """Write one latency setting as a sentence."""
    merged = f", merged {setting['merged_ratio']:.2f} ×" if setting.get("merged_ratio") else ""
    return (
        f"{setting['method_ms']['median']:.1f} ms at batch {setting['batch']} of {setting['length']} tokens,"
        f" {setting['ratio']:.2f} × the bare backbone{merged}"
    )


def _memory(memory: dict[str, Any]) -> str:
    places = (("device_peak", " on the device"), ("host_peak", ""))
    return ", ".join(f"{memory[key] / 2**20:,.0f} MiB{where} at most" for key, where in places if memory[key])


class RecordHistory:
    """Writes the training curve into the record, and sees at each epoch that the run is still ours."""

    def __init__(self, record: Record, lock: RunLock) -> None:
        self._record, self._lock = record, lock

    def on_resume(self, step: int) -> None:
        """Drop what an interrupted run wrote behind its checkpoint."""
        self._record.truncate_history(step)

    def on_steps(self, row: dict[str, Any]) -> None:
        """Append the row."""
        self._record.append_history(row)

    def on_epoch(self, row: dict[str, Any]) -> None:
        """Append the row."""
        self._lock.check()
        self._record.append_history(row)


class Terminal:
    """A progress bar on a terminal; a line an epoch in a pipe or a log file."""

    def __init__(self, config: RunConfig, metrics: Iterable[str]) -> None:
        self._metrics = list(metrics)
        self._epochs = config.trainer.epochs
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[score]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task("starting", total=None, speed="", score="")
        self._title = f"{config.method_name} on {config.task.name}, {config.model.name}, seed {config.seed}"

    def __enter__(self) -> "Terminal":
        console.print(f"[bold]{self._title}[/bold]")
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
        score = "  ".join(f"{metric_name(name)} {format_metric(name, validation[name])}" for name in self._metrics)
        self._progress.update(self._bar, score=score)
        console.print(f"epoch {row['epoch']}/{self._epochs}  loss {row['loss']:.3f}  {score}  {row['seconds']:.0f} s")
