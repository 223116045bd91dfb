"""Splits that are a share of the training data, each with every class in its proportion."""

from collections.abc import Mapping, Sequence

import numpy as np

from peftbench.errors import UserError

REST = "train"
_SEED = 0  # not the run's: all runs on the data have the same splits


def divide(labels: Sequence[int] | Sequence[float], shares: Mapping[str, float]) -> dict[str, list[int]]:
    """Return the rows of each share, and those left as `train`, in their order; the same for the same labels.

    Args:
        labels: of the rows, classes or scores; rows of like label are dealt out evenly.
        shares: 0 to 1 by the name of the split. A row of each class stays with `train`.

    Raises UserError where a share is not a row, no label occurs twice, or what is left has no two labels.
    """
    named = ", ".join(f"task.splits.{name}={share:g}" for name, share in shares.items())
    if sum(shares.values()) >= 1:
        raise UserError(f"{named}: together they must leave rows to train on")
    values = np.asarray(labels)
    order = np.lexsort((np.random.default_rng(_SEED).permutation(len(values)), values))
    if values.dtype.kind == "i":
        order = order[(np.bincount(values - values.min()) > 1)[values[order] - values.min()]]
    if not len(order):
        raise UserError(
            f"task.splits.{next(iter(shares))}: no label occurs twice, and the only row of a class stays with {REST}:"
            " is task.label the right column? Labels that are scores take 'task.metrics=[pearson,spearman]'"
        )
    parts: dict[str, list[int]] = {}
    left = 1.0
    for name, share in shares.items():
        # every (left / share)-th row of those sorted by label
        steps = np.floor(np.arange(len(order) + 1) * (share / left) + 0.5)
        taken = np.diff(steps) > 0
        if not taken.any():
            raise UserError(f"task.splits.{name}={share:g}: of {len(values):,} rows that is none")
        parts[name] = sorted(order[taken].tolist())
        order = order[~taken]
        left -= share
    chosen = {row for rows in parts.values() for row in rows}
    rest = [row for row in range(len(values)) if row not in chosen]
    kinds, left_kinds = (len(np.unique(part)) for part in (values, values[rest]))
    if not rest or left_kinds < 2 <= kinds:
        alike = ", all of one label" if rest else ""
        raise UserError(f"{named}: that leaves {len(rest):,} of {len(values):,} rows to train on{alike}")
    return _with_every_class(values, {REST: rest, **parts}) if values.dtype.kind == "i" else {REST: rest, **parts}


def _with_every_class(classes: np.ndarray, parts: dict[str, list[int]]) -> dict[str, list[int]]:
    """Give a row of each class back to `train` that the shares have taken all rows of."""
    moved: set[int] = set()
    for lost in np.setdiff1d(classes, classes[parts[REST]]):
        held = [[row for row in rows if classes[row] == lost] for name, rows in parts.items() if name != REST]
        moved.add(max(held, key=len)[0])
    found = {name: [row for row in rows if row not in moved] for name, rows in parts.items()}
    return {**found, REST: sorted({*found[REST], *moved})}
