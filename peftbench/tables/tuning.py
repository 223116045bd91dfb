"""What a table says of how its rows were tuned."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from peftbench.tables.table import Table, Tuned


def with_tuning(table: Table, tuned: Sequence[Tuned]) -> Table:
    """Return the table with what tuning its rows came to, and how that is to be read; as it is where none was tuned."""
    if not tuned:
        return table
    trials = {of.row: len(of.scores) + of.failed for of in tuned}
    most = max(trials.values())
    reading = [
        f"tuned: the best of {counted(trials.values())} trials a row on validation, by a seed that is not among those"
        " shown; the expected best of fewer is that of random ones of them (Dodge et al. 2019)"
    ]
    if table.evaluation.startswith("validation"):
        reading.append("chosen and scored on the same validation examples: table.split=test is free of that")
    notes = []
    if left := [row.label for row in table.rows if row.label not in {of.row for of in tuned}]:
        notes.append(f"not tuned, for nothing trains or they are made of other rows' runs: {', '.join(left)}")
    notes += [
        f"{of.row}: {of.failed} of {trials[of.row]} trials failed, counted as the worst" for of in tuned if of.failed
    ]
    if used_up := [row for row, count in trials.items() if count < most]:
        notes.append(f"its space has no more combinations: {', '.join(f'{row}, {trials[row]}' for row in used_up)}")
    return replace(table, tuning=list(tuned), reading=[*table.reading, *reading], notes=[*table.notes, *notes])


def counted(trials: Collection[int]) -> str:
    """Write how many trials rows have: `8`, or `2 to 8`."""
    fewest, most = min(trials), max(trials)
    return str(most) if fewest == most else f"{fewest} to {most}"
