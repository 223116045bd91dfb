"""From the rows of a text task's splits to examples with class indices or scores."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from peftbench.errors import UserError, nearest
from peftbench.tasks.base import Objective
from peftbench.tasks.classification import Classification
from peftbench.tasks.metrics import SCORE_METRICS, check_metrics
from peftbench.tasks.regression import Regression
from peftbench.tasks.text.files import Rows
from peftbench.tasks.text.sources import MissingSplitError, open_source
from peftbench.tasks.text.task import TextSplit, TextTask

if TYPE_CHECKING:
    from peftbench.config.schema import TaskConfig

SPLITS = ("train", "validation", "test")


def load_task(config: "TaskConfig", splits: Sequence[str] | None = None) -> TextTask:
    """Read a task's splits.

    Texts come without the white space around them, so that one data set is the same from every source.

    Args:
        config: where the task comes from and what its columns are.
        splits: the wanted ones, all of which must be there; by default train, validation and, where there is
            one, test.

    Raises:
        UserError: the data cannot be had or read; one line that says where and what to do.
    """
    check_metrics(config.metrics)
    known = [*SPLITS, *(name for name in config.splits if name not in SPLITS)]
    for name in splits or ():
        if name not in known:
            raise UserError(f"task {config.name}: unknown split {name!r}. {nearest(name, known)}")
    source = open_source(config)
    rows: dict[str, Rows] = {}
    for name in splits or SPLITS:
        try:
            rows[name] = source.read(name)
        except MissingSplitError:
            if splits or name != "test":
                raise
    labels = tuple(map(str, config.labels))
    if config.threshold is not None and len(labels) != 2:
        raise UserError(f"task {config.name}: task.threshold makes two classes; name both in task.labels")
    own_files = config.source == "local"
    if own_files and not labels and not set(config.metrics) <= set(SCORE_METRICS):
        labels = _find_classes(rows["train"] if "train" in rows else source.read("train"), config.label)
    _check_kind(config, labels)
    indices = {name: index for index, name in enumerate(labels)}
    if not own_files:  # GLUE's files hold the index
        indices |= {str(index): index for index in range(len(labels)) if str(index) not in indices}
    parsed = {name: _split(part, config, labels, indices) for name, part in rows.items()}
    return _task(config, labels, parsed, source.description)


def blank_task(config: "TaskConfig", labels: Sequence[str]) -> TextTask:
    """Return a task without data, for texts that come from elsewhere; `labels` are the class names by index."""
    return _task(config, tuple(labels), {}, "")


def _task(config: "TaskConfig", labels: tuple[str, ...], splits: dict[str, TextSplit], source: str) -> TextTask:
    objective: Objective = Classification(len(labels)) if labels else Regression()
    return TextTask(config.name, objective, labels, tuple(config.metrics), splits, source, config.max_length)


def _check_kind(config: "TaskConfig", labels: Sequence[str]) -> None:
    """Scores need correlations and classes the other metrics."""
    wrong = [name for name in config.metrics if (name in SCORE_METRICS) == bool(labels)]
    if wrong:
        kind = "classes" if labels else "scores"
        raise UserError(f"task {config.name}: its labels are {kind}, which {wrong[0]} cannot judge; set task.metrics")


def _find_classes(rows: Rows, column: str) -> tuple[str, ...]:
    found = {cells[-1].strip() for _, cells in rows.items}
    if len(found) < 2:
        raise UserError(
            f"{rows.origin}, column {column!r}: every label is {min(found)!r}; training needs at least two classes"
        )
    if all(name.removeprefix("-").isdecimal() for name in found):
        return tuple(sorted(found, key=int))
    return tuple(sorted(found))


def _split(rows: Rows, config: "TaskConfig", labels: Sequence[str], indices: Mapping[str, int]) -> TextSplit:
    texts = [tuple(text.strip() for text in cells[:-1]) for _, cells in rows.items]
    cells = [(number, row[-1].strip()) for number, row in rows.items]
    if "-1" not in indices and all(_is_hidden(cell) for _, cell in cells):
        return TextSplit(texts, None)
    if labels and config.threshold is None:
        return TextSplit(texts, [_class(rows, number, cell, config, indices) for number, cell in cells])
    scores = [_score(rows, number, cell, config) for number, cell in cells]
    if config.threshold is None:
        return TextSplit(texts, scores)
    return TextSplit(texts, [int(value >= config.threshold) for value in scores])


def _is_hidden(cell: str) -> bool:
    """−1, in whichever way the source writes it, is GLUE's hidden label."""
    try:
        return float(cell) == -1
    except ValueError:
        return False


def _class(rows: Rows, number: int, cell: str, config: "TaskConfig", indices: Mapping[str, int]) -> int:
    if cell not in indices:
        raise UserError(
            f"{rows.at(number)}, column {config.label!r}: label {cell!r} is not one of {', '.join(indices)}; "
            "correct the row or set task.labels"
        )
    return indices[cell]


def _score(rows: Rows, number: int, cell: str, config: "TaskConfig") -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"{rows.at(number)}, column {config.label!r}: {cell!r} is not a number; "
            "correct the row, or use class metrics (task.metrics=[accuracy,f1]) if the labels are classes"
        )
    return value
