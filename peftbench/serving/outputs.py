"""How answers are shown and written: a JSON object a line, tab-separated, a table, or a CSV file."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from peftbench.csv_rows import write_rows
from peftbench.files import atomic_write
from peftbench.serving.inputs import InputRow
from peftbench.serving.predictor import Answer
from peftbench.terminal import print_as_json

Batch = list[tuple[InputRow, Answer]]
# header of the predicted class's probability, for rows of several tasks, which have no classes in common
CONFIDENCE_COLUMN = "probability"


def print_json(batches: Iterable[Batch], key: str = "text") -> None:
    """Print an object a line: what was given as `key` (a list of two for a pair), prediction (or null), probabilities.

    In front of them stands the task, where rows have one each.
    """
    for batch in batches:
        for row, answer in batch:
            text = row.texts[0] if len(row.texts) == 1 else row.texts
            line: dict[str, Any] = {} if row.task is None else {"task": row.task}
            line |= {key: text, "prediction": answer.prediction}
            if answer.probabilities:
                line["probabilities"] = answer.probabilities
            print_as_json(line)
        sys.stdout.flush()


def print_tsv(batches: Iterable[Batch], columns: Sequence[str], labels: Sequence[str] | None) -> None:
    """Print a header, then prediction, probabilities and text of each example with tabs between them.

    Args:
        labels: the classes; None where rows have tasks of their own.
    """
    task = [] if labels is not None else ["task"]
    for number, batch in enumerate(batches):
        if number == 0:
            _print_cells([*task, *_new_columns(labels, columns), *columns])
        for row, answer in batch:
            task_cells = [row.task or ""] if task else []
            _print_cells([*task_cells, *_cells(answer, labels), *row.texts])
        sys.stdout.flush()


def _print_cells(cells: Iterable[str]) -> None:
    print(*(" ".join(cell.split()) for cell in cells), sep="\t")


def print_table(batches: Iterable[Batch], columns: Sequence[str], labels: Sequence[str] | None) -> None:
    """Print a table for each batch, the first with a header, all with the same widths; `labels` as in `print_tsv`."""
    from rich.table import Table
    from rich.text import Text

    from peftbench.terminal import console

    for number, batch in enumerate(batches):
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=number == 0)
        if labels is None:
            table.add_column("task", min_width=10, no_wrap=True)
        table.add_column("prediction", min_width=max([10, *map(len, labels or ())]), no_wrap=True, style="bold")
        for name in _probability_columns(labels):
            table.add_column(Text(name), min_width=max(len(name), 7), justify="right", no_wrap=True)
        for column in columns:
            table.add_column(Text(column), ratio=1, overflow="fold")
        for row, answer in batch:
            prediction = answer.prediction
            shown = f"{prediction:.3f}" if isinstance(prediction, float) else prediction or ""
            shares = [f"{100 * share:.1f} %" if share is not None else "" for share in _probabilities(answer, labels)]
            task_cells = [Text(row.task or "")] if labels is None else []
            table.add_row(*task_cells, Text(shown), *shares, *map(Text, row.texts))
        console.print(table, soft_wrap=False)


def write_csv(path: Path, batches: Iterable[Batch], columns: Sequence[str], labels: Sequence[str] | None) -> None:
    """Write every row of the input as it was, in its order, and behind it its prediction and probabilities.

    A new column whose name is taken already gets `_2` behind it. The file is there once all rows are.
    """
    with atomic_write(path) as file:
        write_rows(file, [[*columns, *_new_columns(labels, columns)]])
        for batch in batches:
            write_rows(file, ([*row.cells, *_cells(answer, labels)] for row, answer in batch))


def _cells(answer: Answer, labels: Sequence[str] | None) -> list[str]:
    """Return prediction and probabilities as text; all empty where there is no answer."""
    prediction = answer.prediction
    shown = f"{prediction:.6g}" if isinstance(prediction, float) else prediction or ""
    return [shown, *(f"{share:.6f}" if share is not None else "" for share in _probabilities(answer, labels))]


def _probability_columns(labels: Sequence[str] | None) -> Sequence[str]:
    """Return the headers of the probabilities: the classes, or one header for rows of several tasks."""
    return [CONFIDENCE_COLUMN] if labels is None else labels


def _probabilities(answer: Answer, labels: Sequence[str] | None) -> list[float | None]:
    """Return an answer's probabilities under these headers, None where it has none."""
    if not answer.probabilities:
        return [None for _ in _probability_columns(labels)]
    if labels is None:
        return [max(answer.probabilities.values())]
    return [answer.probabilities[name] for name in labels]


def _new_columns(labels: Sequence[str] | None, columns: Sequence[str]) -> list[str]:
    """Return the headers of prediction and probabilities, with `_2` and so on behind those that `columns` has."""
    new: list[str] = []
    for name in ("prediction", *_probability_columns(labels)):
        number, unused = 2, name
        while unused in columns or unused in new:
            unused, number = f"{name}_{number}", number + 1
        new.append(unused)
    return new
