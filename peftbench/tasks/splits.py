"""Which splits of a task are read, and which are a share of its training data: the same for every kind of data."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from peftbench.config.task import TaskConfig
from peftbench.errors import UserError, nearest
from peftbench.tasks.shares import REST, divide

SPLITS = ("train", "validation", "test")
SplitData = TypeVar("SplitData")


class MissingSplitError(UserError):
    """A source holds no such split."""


def check_names(config: TaskConfig, splits: Sequence[str] | None) -> None:
    """Raise UserError for a split that the task does not have."""
    known = [*SPLITS, *(name for name in config.splits if name not in SPLITS)]
    for name in splits or ():
        if name not in known:
            raise UserError(f"task {config.name}: unknown split {name!r}. {nearest(name, known)}")


def read_parts(
    config: TaskConfig, splits: Sequence[str] | None, read: Callable[[str], SplitData]
) -> dict[str, SplitData]:
    """Read what the splits asked for are made of, by name: for one that is a share, the training data.

    Args:
        splits: names, all of which must be there; None: train, validation, and test where there is one or it is named.
        read: reads one; raises MissingSplitError where it is not there.
    """
    shares = _shares(config)
    parts: dict[str, SplitData] = {}
    for name in dict.fromkeys(REST if name in shares else name for name in splits or SPLITS):
        try:
            parts[name] = read(name)
        except MissingSplitError:
            # GLUE's folders lack test files that conf/task names
            if splits or name != "test" or (config.splits.get(name) and config.source != "glue"):
                raise
    return parts


def chosen_splits(
    config: TaskConfig, splits: Sequence[str] | None, parts: Mapping[str, Any], strata: Callable[[Any], Sequence[Any]]
) -> dict[str, Any]:
    """Return the splits asked for, the shares taken out of the training data.

    Args:
        parts: what `read_parts` gave, as splits with a `subset`. strata: the labels of the training data, by which a
            share has each in its proportion.
    """
    found = dict(parts)
    shares = _shares(config)
    if shares and REST in found:
        rest = found[REST]
        found |= {name: rest.subset(rows) for name, rows in divide(strata(rest), shares).items()}
    return {name: found[name] for name in splits or SPLITS if name in found}


def _shares(config: TaskConfig) -> dict[str, float]:
    return {name: share for name, share in config.splits.items() if isinstance(share, float)}
