"""Where each row of a table stands among all of them: its tie groups, and how probable it is that it is the best."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from peftbench.tables.best import probabilities_best
from peftbench.tables.columns import SCORES
from peftbench.tables.groups import tie_groups
from peftbench.tables.pooling import Pool, pool_rows
from peftbench.tables.scored import RowScores
from peftbench.tables.table import Cell, Pair, Row


def with_ranking(
    rows: Sequence[Row], scored: Mapping[str, RowScores], primary: str, pairs: Sequence[Pair]
) -> list[Row]:
    """Return the rows with their groups and P(best); those of one seed, or of other examples, have neither."""
    several = {label: row for label, row in scored.items() if len(row.seeds) > 1}
    first = next(iter(several.values()), None)
    together = {label: row.draws(primary) for label, row in several.items() if first and row.has_examples_of(first)}
    if len(together) < 2:
        return list(rows)
    return ranked_rows(rows, together, pairs, pool_rows(together.values()))


def ranked_rows(rows: Sequence[Row], draws: Mapping[str, np.ndarray], pairs: Sequence[Pair], pool: Pool) -> list[Row]:
    """Return the rows with groups and P(best), of those that have draws; `pairs` are all pairs of these.

    `draws` are (1 + draws, seeds) by label, of the same examples, two seeds or more; `pool` what they have in common.
    """
    best = probabilities_best(draws, pool)
    ranked = sorted(draws, key=lambda label: -draws[label][0].mean())
    groups = tie_groups(ranked, [pair for pair in pairs if pair.row in draws and pair.other in draws])
    return [
        replace(
            row,
            cells={**row.cells, "p_best": Cell(100 * best[row.label], None, draws[row.label].shape[1])},
            group=groups.get(row.label, ""),
        )
        if row.label in draws
        else row
        for row in rows
    ]


def with_p_best(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Return the columns of a table with that of P(best) behind the last score, where there is any."""
    if "p_best" in columns or not any("p_best" in row.cells for row in rows):
        return list(columns)
    last = max((place for place, key in enumerate(columns, start=1) if key in SCORES), default=len(columns))
    return [*columns[:last], "p_best", *columns[last:]]
