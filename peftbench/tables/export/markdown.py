"""A table as Markdown."""

from peftbench.tables.export.grid import Text, claims, grid, published, under
from peftbench.tables.table import Table


def to_markdown(table: Table) -> str:
    """Return a Markdown section: heading, figures, claims with verdicts, notes, and what it was made with."""
    laid = grid(table)
    lines = [f"## {table.title}", "", f"{_escape(under(table))}", ""]
    lines += _table(laid.headings, [[_marked(text) for text in row] for row in laid.rows])
    if table.claims:
        told = [[_escape(part) for part in claim] for claim in claims(table)]
        lines += ["", *_table(["what the lab says", "measured", "verdict"], told, align_right=False)]
    if notes := published(table):
        lines += ["", "Published:", "", *(f"- {_escape(note)}" for note in notes)]
    lines += ["", *(f"- {_escape(note)}" for note in (*laid.reading, *laid.notes))]
    facts = "; ".join(f"{name} {', '.join(values)}" for name, values in table.environment.items())
    return "\n".join([*lines, "", f"`{table.command}`", "", *([_escape(facts), ""] if facts else [])])


def _table(headings: list[str], rows: list[list[str]], align_right: bool = True) -> list[str]:
    rule = ["---", *(["---:" if align_right else "---"] * (len(headings) - 1))]
    return [f"| {' | '.join(line)} |" for line in ([_escape(text) for text in headings], rule, *rows)]


def _marked(text: Text) -> str:
    return f"**{_escape(text.text)}**" if text.bold and text.text else _escape(text.text)


def _escape(text: str) -> str:
    for letter in "\\|*_<`":
        text = text.replace(letter, f"\\{letter}")
    return text.replace("\n", " ")
