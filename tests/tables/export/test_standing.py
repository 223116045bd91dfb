"""Tie groups, P(best) and verdicts against the baseline, in every form of a table."""

import io
import json
import re
from dataclasses import replace

import pytest
from made_table import made_table
from rich.console import Console

from peftbench.tables.columns import COLUMNS
from peftbench.tables.export.csv_file import to_csv
from peftbench.tables.export.formats import to_json
from peftbench.tables.export.html import to_html
from peftbench.tables.export.latex import to_latex
from peftbench.tables.export.markdown import to_markdown
from peftbench.tables.export.terminal import to_terminal
from peftbench.tables.table import Cell, Claim, Pair


def table():
    made = made_table()
    against = {
        2: Pair("LoRA, r = 8", "Full fine-tuning", -3.6, -7.5, 0.3, "cannot be told", 12),
        4: Pair("BitFit", "Full fine-tuning", -7.0, -9.8, -4.2, "lower"),
        5: Pair("Head only", "Full fine-tuning", 0.1, -0.5, 0.6, "not different"),
    }
    rows = [
        replace(row, cells={**row.cells, "p_best": Cell(25.0)}, group="ab", against=against.get(number))
        for number, row in enumerate(made.rows)
    ]
    columns = [*made.columns[:2], COLUMNS["p_best"], *made.columns[2:]]
    claims = [Claim("LoRA is better", "−3.6 (−7.5 … 0.3)", "cannot be told", "about 12 seeds each would decide")]
    return replace(made, rows=rows, columns=columns, pairs=list(against.values()), claims=claims)


def terminal(made):
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(to_terminal(made))
    return console.export_text()


@pytest.mark.parametrize("render", [terminal, to_markdown, to_latex, to_html])
def test_every_form_shows_groups_chances_and_verdicts(render):
    text = render(table())
    for expected in (
        "P(best)",
        "group",
        "lower: BitFit by at least 4.2",
        "not different by more than 1 point: Head only",
    ):
        assert expected in text, expected
    assert "cannot be told: LoRA, r = 8 (about 12 seeds each would decide)" in text
    if render is not to_latex:
        assert "cannot be told: about 12 seeds each would decide" in text


@pytest.mark.parametrize("render", [terminal, to_markdown, to_latex, to_html])
def test_no_form_has_a_column_of_groups_that_were_left_out(render):
    made = table()
    text = render(replace(made, rows=[replace(row, group="") for row in made.rows]))
    assert "P(best)" in text and not re.search(r"\bgroup\s*[|&<]|\bgroup +P\(best\)", text)


def test_a_program_finds_them_too():
    head, *lines = to_csv(table()).splitlines()
    assert head.endswith("published,group,against_baseline,runs")
    assert any(line.startswith("BitFit,p_best") or "lower by at least 4.2 points" in line for line in lines)
    found = json.loads(to_json(table()))
    assert found["rows"][0]["group"] == "ab" and found["rows"][0]["cells"]["p_best"]["value"] == 25
    assert found["pairs"][0]["verdict"] == "cannot be told" and found["pairs"][0]["needs_seeds"] == 12


def test_rows_that_no_number_of_seeds_would_tell_stand_in_one_line():
    made = table()
    pairs = [Pair(row.label, "Full fine-tuning", -0.4, -1.6, 0.8, "cannot be told", None, 7_912) for row in made.rows]
    rows = [replace(row, against=pair) for row, pair in zip(made.rows, pairs, strict=True)]
    (line,) = (line for line in to_markdown(replace(made, rows=rows)).splitlines() if "by any number of seeds" in line)
    assert line.startswith("- cannot be told by any number") and line.count("(about 7,900)") == len(rows)
