"""The terminal: its two streams, errors in one line, and how scores are written."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 10_000  # a pipe or a log file folds no line
error_console = Console(stderr=True, highlight=False, soft_wrap=True)

# how each metric is written: its name, and whether as a percentage
_METRICS = {
    "accuracy": ("accuracy", "%"),
    "f1": ("F1", "%"),
    "matthews": ("Matthews", ""),
    "pearson": ("Pearson", ""),
    "spearman": ("Spearman", ""),
}


def working(what: str) -> AbstractContextManager[Any]:
    """Show on a terminal what takes its time inside the block."""
    return console.status(what) if console.is_terminal else nullcontext()


def print_error(error: Exception) -> None:
    """Print an error's one line."""
    error_console.print(f"peftbench: {error}", markup=False)


def format_metric(name: str, value: float | None) -> str:
    """Write a metric as its readers do: accuracy and F1 in percent, correlations as they are."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if _METRICS.get(name, ("", ""))[1] else f"{value:.3f}"


def metric_name(metric: str) -> str:
    """Return the name that readers know a metric by."""
    return _METRICS.get(metric, (metric, ""))[0]
