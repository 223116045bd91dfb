"""From the cells of a label column to class indices or scores, with every fault named by its rows."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from peftbench.errors import UserError
from peftbench.tasks.text.files import Rows

if TYPE_CHECKING:
    from peftbench.config.task import TextTaskConfig

# as R, pandas, spreadsheets and databases write it
_MISSING = ("na", "n/a", "#n/a", "<na>", "null", "none", "\\n")
_CLASSES_NAMED = 10  # of those a faulty label could have been


def find_classes(rows: Rows, column: str) -> tuple[str, ...]:
    """Return the classes that occur, sorted, numbers by value; UserError for a missing label or a single class."""
    _check_present(rows, column, ())
    found = {_label(cells) for _, cells in rows.items}
    if len(found) < 2:
        raise UserError(
            f"{rows.origin}, column {column!r}: every label is {min(found)!r}; training needs at least two classes"
        )
    if all(math.isfinite(number_in(name)) for name in found):
        return tuple(sorted(found, key=lambda name: (number_in(name), name)))
    return tuple(sorted(found))


def number_in(cell: str) -> float:
    """Return the number that a cell holds, NaN where it holds none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def written_as_missing(classes: Sequence[str]) -> list[str]:
    """Return those of the classes that stand, in many files, for a label that is not there."""
    return [name for name in classes if name.lower() in _MISSING]


def read_labels(rows: Rows, config: "TextTaskConfig", classes: Sequence[str]) -> list[int] | list[float] | None:
    """Return the class indices, or the scores where there are no classes; None where all labels are hidden (−1).

    Raises UserError for labels that are missing, or of no class, or no number.
    """
    indices = {name: index for index, name in enumerate(classes)}
    if config.source != "local":  # GLUE's files hold the index
        indices |= {str(index): index for index in range(len(classes)) if str(index) not in indices}
    if "-1" not in indices and all(_is_hidden(_label(cells)) for _, cells in rows.items):
        return None
    if classes and config.threshold is None:
        _check_present(rows, config.label, classes)
        return [_class(rows, number, _label(cells), config, indices) for number, cells in rows.items]
    scores = [_score(rows, number, _label(cells), config) for number, cells in rows.items]
    if config.threshold is None:
        return scores
    return [int(value >= config.threshold) for value in scores]


def _label(cells: tuple[str, ...]) -> str:
    return cells[-1].strip()


def _check_present(rows: Rows, column: str, classes: Sequence[str]) -> None:
    """Refuse empty cells and NaN, as table programs write what is missing."""
    missing = [
        number for number, cells in rows.items if _label(cells).lower() in ("", "nan") and _label(cells) not in classes
    ]
    if missing:
        what = "no label" if len(missing) == 1 else f"{len(missing):,} rows have no label"
        raise UserError(
            f"{rows.at(*missing)}, column {column!r}: {what}; fill it in or remove the row (-1 in every row hides"
            " the labels of a split)"
        )


def _is_hidden(cell: str) -> bool:
    """−1, in whichever way the source writes it, is GLUE's hidden label."""
    return number_in(cell) == -1


def _class(rows: Rows, number: int, cell: str, config: "TextTaskConfig", indices: Mapping[str, int]) -> int:
    if cell not in indices:
        more = f" and {len(indices) - _CLASSES_NAMED:,} more" if len(indices) > _CLASSES_NAMED else ""
        raise UserError(
            f"{rows.at(number)}, column {config.label!r}: label {cell!r} is not one of "
            f"{', '.join(list(indices)[:_CLASSES_NAMED])}{more}; correct the row or set task.labels"
        )
    return indices[cell]


def _score(rows: Rows, number: int, cell: str, config: "TextTaskConfig") -> float:
    value = number_in(cell)
    if not math.isfinite(value):
        raise UserError(
            f"{rows.at(number)}, column {config.label!r}: {cell!r} is not a number; "
            "correct the row, or use class metrics (task.metrics=[accuracy,f1]) if the labels are classes"
        )
    return value
