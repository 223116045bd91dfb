"""From the rows of a text task's splits to examples with class indices or scores."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.errors import UserError
from peftbench.files import is_there
from peftbench.tasks.base import Objective
from peftbench.tasks.classification import Classification
from peftbench.tasks.metrics import CORRELATIONS, check_metrics
from peftbench.tasks.regression import Regression
from peftbench.tasks.shares import REST
from peftbench.tasks.splits import check_names, chosen_splits, read_parts
from peftbench.tasks.text.files import Rows
from peftbench.tasks.text.labels import find_classes, read_labels, written_as_missing
from peftbench.tasks.text.sources import Source, open_source
from peftbench.tasks.text.task import TextSplit, TextTask

if TYPE_CHECKING:
    from peftbench.config.task import TextTaskConfig

_YOUNG_NANOSECONDS = 2e9
_last: list[Any] = []  # what the last task was made from, and the task


def load_task(config: "TextTaskConfig", splits: Sequence[str] | None = None) -> TextTask:
    """Read a task's splits; as long as its files stay as they are, the last task read in a process is kept.

    Texts come without the white space around them, so that one data set is the same from every source.

    Args:
        config: where the task comes from and what its columns are.
        splits: names, all of which must be there; by default train, validation and, where there is one, test.

    Raises:
        UserError: the data cannot be had or read; one line that says where and what to do.
    """
    check_metrics(config.metrics)
    check_names(config, splits)
    source = open_source(config)
    return _kept(lambda: _load(config, source, splits), source, json.dumps([vars(config), splits], default=str))


def _kept(load: Callable[[], TextTask], source: Source, request: str) -> TextTask:
    """Return the task that was read last where it is the same, with its checksums; else what `load` gives."""
    stamps = [_stamp(path) for path in source.files if is_there(path)]
    key = (request, stamps)
    if _last and _last[0] == key:
        return _last[1]
    _last.clear()  # first: two may not fit
    task = load()
    # a file written to again within the clock's resolution would keep its times
    if stamps and time.time_ns() - max(stamp[-1] for stamp in stamps) > _YOUNG_NANOSECONDS:
        _last[:] = [key, task]
    return task


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_size, max(status.st_mtime_ns, status.st_ctime_ns)


def _load(config: "TextTaskConfig", source: Source, splits: Sequence[str] | None) -> TextTask:
    rows = read_parts(config, splits, source.read)
    labels = tuple(map(str, config.labels))
    faults: list[str] = []
    if config.threshold is not None and len(labels) != 2:
        raise UserError(f"task {config.name}: task.threshold makes two classes; name both in task.labels")
    if config.source == "local" and not labels and not set(config.metrics) <= set(CORRELATIONS):
        labels = find_classes(rows[REST] if REST in rows else source.read(REST), config.label)
        faults = [
            f"{name!r} is a class like any other: name the classes in task.labels, or remove the rows if it means none"
            for name in written_as_missing(labels)
        ]
    _check_kind(config, labels)
    parsed = {name: TextSplit(_texts(part), read_labels(part, config, labels)) for name, part in rows.items()}
    chosen = chosen_splits(config, splits, parsed, _strata)
    faults += [fault for part in rows.values() for fault in part.faults]
    return _task(config, labels, chosen, source.description, tuple(faults))


def _texts(rows: Rows) -> list[tuple[str, ...]]:
    return [tuple(text.strip() for text in cells[:-1]) for _, cells in rows.items]


def _strata(split: TextSplit) -> Sequence[int] | Sequence[float]:
    if split.labels is None:
        raise UserError("a share of the training file needs its labels, which are all hidden (-1)")
    return split.labels


def blank_task(config: "TextTaskConfig", labels: Sequence[str]) -> TextTask:
    """Return a task without data, for texts that come from elsewhere; `labels` are the class names by index."""
    return _task(config, tuple(labels), {}, "", ())


def _task(
    config: "TextTaskConfig",
    labels: tuple[str, ...],
    splits: dict[str, TextSplit],
    source: str,
    faults: tuple[str, ...],
) -> TextTask:
    objective: Objective = Classification(labels) if labels else Regression()
    columns, metrics = tuple(config.text), tuple(config.metrics)
    return TextTask(config.name, objective, labels, metrics, splits, source, columns, config.max_length, faults)


def _check_kind(config: "TextTaskConfig", labels: Sequence[str]) -> None:
    """Scores need correlations and classes the other metrics."""
    wrong = [name for name in config.metrics if (name in CORRELATIONS) == bool(labels)]
    if wrong:
        kind = "classes" if labels else "scores"
        raise UserError(f"task {config.name}: its labels are {kind}, which {wrong[0]} cannot judge; set task.metrics")
