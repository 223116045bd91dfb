"""Markup, formulas and control characters in labels, tasks, models and folders: shown as they are, in every format."""

import csv
import io
from dataclasses import replace

import pytest
from made_table import made_table
from rich.console import Console

from peftbench.tables.export.formats import TEXTS, write_table
from peftbench.tables.export.terminal import to_terminal
from peftbench.tables.table import Cell, Claim
from peftbench.terminal import printable

MARKUP = "[/b] [red]x[/red] [link=file:///etc]y[/link]"
FORMULAS = ["=1+1", "+1", "-x", "@SUM(A1)", "\tx"]
CONTROL = "a\x1b[31mb\u202ec\rd"


def table_of(text):
    """A table with `text` wherever a user's own words can stand."""
    table = made_table()
    runs = [replace(run, id=text, folder=text, reason=text) for run in table.rows[0].runs]
    cell = Cell(86.0, 1.0, 3, lab=84.0, verdict="holds", published=text)
    first = replace(table.rows[0], label=text, runs=runs, cells={**table.rows[0].cells, "accuracy": cell})
    return replace(
        table,
        title=text,
        model=text,
        task=text,
        command=text,
        rows=[first, *table.rows[1:]],
        claims=[Claim(text, text, "holds")],
        notes=[text],
    )


def on_terminal(table):
    console = Console(width=2000, file=io.StringIO(), legacy_windows=False)
    console.print(to_terminal(table))
    return console.file.getvalue()


def test_markup_is_shown_on_the_terminal():
    shown = on_terminal(table_of(MARKUP))
    assert (
        shown.count(MARKUP) == 9
    )  # title, model, task, label, claim, measured, the published figure's label, its text, note


def test_markup_does_not_act_in_markdown_latex_and_html():
    markdown = TEXTS["markdown"][1](table_of("[a](b) <i> **c** $d$ ~~e~~ &lt; | `f`"))
    assert r"\[a\](b) \<i> \*\*c\*\* \$d\$ \~\~e\~\~ \&lt; \| \`f\`" in markdown
    assert "`` [a](b) <i> **c** $d$ ~~e~~ &lt; | `f` ``" in markdown, "the command"
    html = TEXTS["html"][1](table_of("</title><b>&lt;"))
    assert "</title><b>" not in html and "&lt;/title&gt;&lt;b&gt;&amp;lt;" in html
    latex = TEXTS["latex"][1](table_of("[1em] * --x"))
    assert "{[}1em{]} {*} {-}{-}x &" in latex
    assert not any(line.startswith(("[", "*")) for line in latex.splitlines()), r"\\ would take it as its argument"


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_the_csv_is_a_formula(text):
    rows = list(csv.reader(io.StringIO(TEXTS["csv"][1](table_of(text)))))
    cells = {cell for row in rows for cell in row}
    assert f"'{printable(text)}" in cells or printable(text) in cells and not text.startswith(("=", "+", "-", "@"))
    numbers = {cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))}
    assert all(float(number) < 0 for number in numbers)


def test_control_characters_are_shown_escaped():
    texts = [on_terminal(table_of(CONTROL)), *(TEXTS[name][1](table_of(CONTROL)) for name in TEXTS if name != "json")]
    for text in texts:
        assert not set("\x1b\u202e\r") & set(text)
    assert r"a\x1b[31mb\u202ec\rd" in texts[0]


@pytest.mark.parametrize("text", [MARKUP, *FORMULAS, CONTROL, "$x", "\ud800"])
def test_every_format_can_be_written(text, tmp_path):
    assert len(write_table(table_of(text), tmp_path, [*TEXTS, "svg"])) == len(TEXTS) + 3
