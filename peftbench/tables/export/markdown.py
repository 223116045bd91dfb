"""A table as Markdown."""

import re

from peftbench.tables.export.grid import Text, claims, lay_out, published, subtitle, verdicts
from peftbench.tables.export.texts import printable_texts
from peftbench.tables.export.tuning import TITLE, tuning_grid
from peftbench.tables.table import Table


def to_markdown(table: Table) -> str:
    """Return a Markdown section: heading, figures, claims with verdicts, notes, and what it was made with."""
    table = printable_texts(table)
    grid = lay_out(table)
    lines = [f"## {_escape(table.title)}", "", f"{_escape(subtitle(table))}", ""]
    lines += _table(grid.headings, [[_marked(text) for text in row] for row in grid.rows])
    if table.conclusion:
        lines += ["", _escape(table.conclusion)]
    if against := verdicts(table):
        lines += ["", f"Against {_escape(table.baseline)}:", "", *(f"- {_escape(line)}" for line in against)]
    if table.claims:
        rows = [[_escape(part) for part in claim] for claim in claims(table)]
        lines += ["", *_table(["claim", "measured", "verdict"], rows, align_right=False)]
    if table.tuning:
        headings, rows = tuning_grid(table)
        lines += ["", f"{TITLE}:", "", *_table(headings, [[_escape(text) for text in row] for row in rows])]
    if notes := published(table):
        lines += ["", "Published:", "", *(f"- {_escape(note)}" for note in notes)]
    # a list right behind another would be one with it
    lines += ["", "Notes:", "", *(f"- {_escape(note)}" for note in (*grid.reading, *grid.notes))]
    facts = "; ".join(f"{name} {', '.join(values)}" for name, values in table.environment.items())
    return "\n".join([*lines, "", _code(table.command), "", *([_escape(facts), ""] if facts else [])])


def _table(headings: list[str], rows: list[list[str]], align_right: bool = True) -> list[str]:
    rule = ["---", *(["---:" if align_right else "---"] * (len(headings) - 1))]
    return [f"| {' | '.join(line)} |" for line in ([_escape(text) for text in headings], rule, *rows)]


def _marked(text: Text) -> str:
    return f"**{_escape(text.text)}**" if text.bold and text.text else _escape(text.text)


def _code(text: str) -> str:
    """Quote a command by more backticks than stand in it one after the other."""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}{text}{fence}" if fence == "`" else f"{fence} {text} {fence}"


def _escape(text: str) -> str:
    # what would become emphasis, code, a link, an entity, HTML, a formula, a heading or a cell's end
    return re.sub(r"([\\`*_\[\]<&$#~|])", r"\\\1", text)
