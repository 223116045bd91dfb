"""The terminal: its two streams, errors in one line, and how scores are written."""

import json
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from peftbench.errors import PeftbenchError

# control characters but the line end, and those that turn the direction of what follows
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


_PADDING = re.compile(r"[ \t]+(?=\n)")


class _Unpadded:
    """A stream without the spaces that rich pads lines with, unless it is a terminal."""

    def __init__(self, name: str) -> None:
        self._name = name  # of the stream in `sys`, which tests and commands may replace

    def write(self, text: str) -> int:
        stream = getattr(sys, self._name)
        stream.write(text if stream.isatty() else _PADDING.sub("", text))
        return len(text)  # not what write says: that of Ray's workers says nothing

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(sys, self._name), name)


class _SafeConsole(Console):
    """Shows every text as it is: markup, emoji codes and control characters in a label or a name do nothing.

    What is to be bold or dim is a `Text`, or printed with `style=`.
    """

    def __init__(self, stderr: bool = False) -> None:
        stream: Any = _Unpadded("stderr" if stderr else "stdout")
        super().__init__(file=stream, stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
        if not self.is_terminal:
            self.width = 10_000  # a pipe or a log file folds no line

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, with control characters of the texts written out."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def on_broken_pipe(self) -> NoReturn:
        """End quietly where the reader has gone (`| head`): rich would end with code 1."""
        try:
            super().on_broken_pipe()
        except SystemExit:
            raise SystemExit(0) from None
        raise AssertionError("rich ends the program where the reader has gone")


def printable(text: str) -> str:
    """Write out control characters (`\\x1b`), which would move the cursor, colour or hide what follows."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


console = _SafeConsole()
error_console = _SafeConsole(stderr=True)

# how each metric is written: its name, and whether as a percentage
_METRICS = {
    "accuracy": ("accuracy", "%"),
    "f1": ("F1", "%"),
    "macro_f1": ("F1 (macro)", "%"),
    "roc_auc": ("ROC AUC", ""),
    "matthews": ("Matthews", ""),
    "pearson": ("Pearson", ""),
    "spearman": ("Spearman", ""),
    "iou": ("IoU", "%"),
    "miou": ("mIoU", "%"),
    "pixel_accuracy": ("pixel accuracy", "%"),
    "ap": ("AP", "%"),
    "ap50": ("AP50", "%"),
    "ap75": ("AP75", "%"),
}


def working(what: str, on: Console = console) -> AbstractContextManager[Any]:
    """Show what takes its time inside the block, where the console `on` is a terminal."""
    return on.status(Text(what)) if on.is_terminal else nullcontext()


def print_table(*parts: RenderableType) -> None:
    """Print tables and texts, folded to the terminal's width."""
    for part in parts:
        console.print(part, soft_wrap=False)


def print_as_json(value: Any, indent: int | None = None) -> None:
    """Print JSON on standard output; characters that its encoding lacks become JSON's own escapes."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    print(text)


def print_error(error: Exception | str) -> None:
    """Print an error, or a warning, in one line."""
    error_console.print("peftbench:", " ".join(str(error).splitlines()))


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Run what a script does and end with its exit code; an error of peftbench's is one line and 1 or 2."""
    try:
        sys.exit(main())
    except PeftbenchError as error:
        print_error(error)
        sys.exit(error.exit_code)


def format_metric(name: str, value: float | None) -> str:
    """Write a metric as its readers do: accuracy and F1 in percent, correlations as they are."""
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if _METRICS.get(name, ("", ""))[1] else f"{value:.3f}"


def metric_name(metric: str, classes: int = 2) -> str:
    """Return the name that readers know a metric by; F1 of more than two classes is their mean."""
    if metric == "f1" and classes > 2:
        metric = "macro_f1"
    return _METRICS.get(metric, (metric, ""))[0]


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units: `42 s`, `3 min 5 s`, `2 h 10 min`, `5 d 3 h`."""
    whole = max(0, round(seconds))
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"
