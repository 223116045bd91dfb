"""The page's validation pictures: those of the first used run of each row, embedded whole."""

import base64
import re
from dataclasses import replace

from made_table import SPECIAL, made_table

from peftbench.tables.export.html import to_html


def pictured(table, folder):
    """Give the runs of the first two rows pictures of their own."""
    rows = []
    for number, row in enumerate(table.rows):
        runs = [replace(run, folder=str(folder / f"{number}-{run.seed}")) for run in row.runs]
        if number < 2:
            for run in runs:
                pictures = folder / f"{number}-{run.seed}" / "pictures"
                pictures.mkdir(parents=True)
                for kind in ("truth", "prediction"):
                    (pictures / f"0-{kind}.jpg").write_bytes(f"{kind} of {number}, {run.seed}".encode())
        rows.append(replace(row, runs=runs))
    return replace(table, rows=rows)


def test_the_page_shows_truth_and_each_rows_first_run(tmp_path):
    table = pictured(made_table(), tmp_path)
    page = to_html(table)
    found = re.findall(r'<img alt="([^"]*)" src="data:image/jpeg;base64,([^"]*)">', page)
    contents = [base64.b64decode(data).decode() for _, data in found]
    used = [next(run.seed for run in row.runs if run.used) for row in table.rows[:2]]
    assert contents == [f"truth of 0, {used[0]}", *(f"prediction of {n}, {used[n]}" for n in range(2))]
    assert found[0][0] == "true, picture 1" and SPECIAL not in page


def test_a_table_without_pictures_has_no_strip():
    assert "Validation pictures" not in to_html(made_table())
