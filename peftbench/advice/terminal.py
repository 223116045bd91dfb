"""Advice on the terminal: for each question the figures, the answer in a line, and what the lab says beside it."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from peftbench.advice import sentences
from peftbench.advice.advise import Advice
from peftbench.advice.answer import Answer
from peftbench.advice.limits import Limits, columns
from peftbench.tables.claims import FAILS, HOLDS, OPEN
from peftbench.tables.table import heading

_VERDICTS = {HOLDS: "agrees", FAILS: "contradicted", OPEN: "cannot be told"}
_READING = (
    "(…): 95 % interval; ±: standard deviation over the seeds",
    "= tied: cannot be told from the highest, < scores lower for certain, ? not compared with it",
    "front: within the limits none surpasses it in score, share, latency and training memory at once, by the estimates",
    "latency: at batch 1, merged where one task is served and the method merges; weights: backbone and methods, fp32",
)


def to_terminal(advice: Sequence[Advice], limits: Limits, *further: str) -> RenderableType:
    """Return what rich prints; `further` lines stand at its end."""
    parts: list[RenderableType] = []
    said = set[str]()  # notes of one comparison stand under its first question
    if asked := sentences.limits_asked(limits):
        parts += [Text(f"limits: {asked}"), ""]
    for one in advice:
        parts += [Text(one.question, "bold"), Text(sentences.evidence(one.answer.comparison), "dim"), ""]
        parts += [_figures(one.answer, limits), ""]
        parts += [Text(f"Answer: {sentences.conclusion(one.answer)}", "bold")]
        chosen = [one.answer.best, one.answer.cheapest]
        parts += [Text(f"  {sentences.command(candidate)}") for candidate in chosen if candidate is not None]
        parts += [
            Text(f"  {label}: the interval of {', '.join(over)} reaches over the limit")
            for label, over in one.answer.unsure.items()
        ]
        parts += [Text(f"Beside it, {sentences.beside(other)}") for other in one.beside]
        parts += [
            Text(
                f"  {_VERDICTS[found.verdict]}: {found.text} ({found.source})", "red" if found.verdict == FAILS else ""
            )
            for found in one.verdicts
        ]
        parts += [*(Text(note, "dim") for note in one.notes if note not in said), ""]
        said |= set(one.notes)
    return Group(*parts, *(Text(line, "dim") for line in (*_READING, *further)))


def _figures(said: Answer, limits: Limits) -> Table:
    comparison = said.comparison
    shown = {key: column for key, column in columns(limits.tasks).items() if any(key in c for c in said.costs.values())}
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for title in (heading(comparison.score), "to the highest", *map(heading, shown.values())):
        table.add_column(Text(title), justify="right")
    table.add_column("front")
    if limited := bool(said.over or said.lacking):
        table.add_column("over its limit")
    marks = {pair.row: f"= {sentences.points(pair)}" for pair in said.ties}
    marks |= {pair.row: f"< {sentences.points(pair)}" for pair in said.lower}
    marks |= dict.fromkeys(said.not_compared, "?")
    for one in said.candidates:
        score, costs = one.cells.get(comparison.primary), said.costs[one.label]
        out = [*said.over.get(one.label, []), *(f"{key}: not measured" for key in said.lacking.get(one.label, []))]
        cells = [sentences.figure(score, comparison.score) if score else "–", marks.get(one.label, "–")]
        cells += [sentences.figure(costs[key], column) if key in costs else "–" for key, column in shown.items()]
        cells += ["front" if one.label in said.front else "", *([", ".join(out)] if limited else [])]
        style = "bold" if one is said.best else "dim" if out else ""
        table.add_row(*(Text(text, style) for text in (one.label, *cells)))
    return table
