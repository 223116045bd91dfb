"""How a table's rows were tuned, as a grid of texts: the expected best of k trials, and the settings that won."""

from peftbench.tables.export.plot_data import column
from peftbench.tables.table import Cell, Table, format_cell

TITLE = "Tuned on validation: expected best of k trials"


def tuning_grid(table: Table) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows: a row's expected best of 1, 2, 4 … trials; none where no row was tuned."""
    trials = max((len(tuned.expected) for tuned in table.tuning), default=0)
    counts = sorted({*(2**power for power in range(trials.bit_length())), trials} - {0})
    score = column(table, table.primary)
    headings = ["", *(f"best of {count}" for count in counts), "settings"]
    rows = []
    for tuned in table.tuning:
        expected = [Cell(tuned.expected[count - 1]) if count <= len(tuned.expected) else Cell() for count in counts]
        figures = [format_cell(cell, score) for cell in expected]
        rows.append([tuned.row, *figures, " ".join(tuned.settings) if tuned.scores else "all trials failed"])
    return headings, rows
