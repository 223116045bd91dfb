"""A table as LaTeX, with booktabs."""

from peftbench.tables.export.grid import Text, lay_out, subtitle, verdicts
from peftbench.tables.export.texts import printable_texts
from peftbench.tables.table import Table

_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "η": "eta", "λ": "lambda", "μ": "mu",
    "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "ω": "omega", "Δ": "Delta", "Σ": "Sigma",
}  # fmt: skip
_ESCAPED = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "✓": r"$\checkmark$",
    "✗": r"$\times$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "…": r"\dots{}",
    "–": "--",
    "√": r"$\surd$",
    "<": "$<$",
    ">": "$>$",
    **{letter: rf"$\{name}$" for letter, name in _GREEK.items()},
    "|": "$|$",
    '"': "''",
    # behind \\ and \midrule these would be arguments, and two hyphens are a dash
    **{letter: f"{{{letter}}}" for letter in "[]*-"},
}


def to_latex(table: Table) -> str:
    """Return a `table` environment; it needs the packages amssymb, booktabs and graphicx."""
    table = printable_texts(table)
    grid, against = lay_out(table), verdicts(table)
    body = [" & ".join(map(_marked, row)) + r" \\" for row in grid.rows]
    return "\n".join(
        [
            "% " + table.command,
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape(table.title)}: {_escape(subtitle(table))}. {_escape(table.conclusion)}",
            *([rf"Against {_escape(table.baseline)}: {_escape('; '.join(against))}."] if against else []),
            rf"{_escape('; '.join(grid.reading))}.}}",
            r"\resizebox{\linewidth}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(grid.headings) - 1)}}}",
            r"\toprule",
            " & ".join(map(_escape, grid.headings)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            *(rf"\par\footnotesize {_escape(note)}" for note in grid.notes),
            r"\end{table}",
            "",
        ]
    )


def _marked(text: Text) -> str:
    return rf"\textbf{{{_escape(text.text)}}}" if text.bold else _escape(text.text)


def _escape(text: str) -> str:
    # LaTeX stops at a letter that its fonts lack: those behind Latin are written as a question mark
    return "".join(_ESCAPED.get(letter, letter if letter < "\u0180" else "?") for letter in text)
