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
    shown_notes = set[str]()  # notes of one comparison stand under its first question
    if asked := sentences.limits_asked(limits):
        parts += [Text(f"limits: {asked}"), ""]
    for item in advice:
        parts += [Text(item.question, "bold"), Text(sentences.evidence(item.answer.comparison), "dim"), ""]
        parts += [_figures(item.answer, limits), ""]
        parts += [Text(f"Answer: {sentences.conclusion(item.answer)}", "bold")]
        chosen = [item.answer.best, item.answer.cheapest]
        parts += [Text(f"  {sentences.command(candidate)}") for candidate in chosen if candidate is not None]
        parts += [Text(f"  {line}") for line in sentences.unsure(item.answer)]
        parts += [Text(f"Beside it, {sentences.of_other_source(other)}") for other in item.other_sources]
        parts += [
            Text(
                f"  {_VERDICTS[found.verdict]}: {found.text} ({found.source})", "red" if found.verdict == FAILS else ""
            )
            for found in item.verdicts
        ]
        parts += [*(Text(note, "dim") for note in item.notes if note not in shown_notes), ""]
        shown_notes |= set(item.notes)
    return Group(*parts, *(Text(line, "dim") for line in (*_READING, *further)))


def _figures(answer: Answer, limits: Limits) -> Table:
    comparison = answer.comparison
    shown = {
        key: column for key, column in columns(limits.tasks).items() if any(key in c for c in answer.costs.values())
    }
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for title in (heading(comparison.score), "to the highest", *map(heading, shown.values())):
        table.add_column(Text(title), justify="right", overflow="fold")
    table.add_column("front", overflow="fold")
    if limited := bool(answer.over or answer.lacking):
        table.add_column("over its limit", overflow="fold")
    marks = {pair.row: f"= {sentences.points(pair)}" for pair in answer.ties}
    marks |= {pair.row: f"< {sentences.points(pair)}" for pair in answer.lower}
    marks |= dict.fromkeys(answer.not_compared, "?")
    for candidate in answer.candidates:
        score, costs = candidate.cells.get(comparison.primary), answer.costs[candidate.label]
        out = [
            *answer.over.get(candidate.label, []),
            *(f"{key}: not measured" for key in answer.lacking.get(candidate.label, [])),
        ]
        cells = [sentences.figure(score, comparison.score) if score else "–", marks.get(candidate.label, "–")]
        cells += [sentences.figure(costs[key], column) if key in costs else "–" for key, column in shown.items()]
        cells += ["front" if candidate.label in answer.front else "", *([", ".join(out)] if limited else [])]
        style = "bold" if candidate is answer.best else "dim" if out else ""
        table.add_row(*(Text(text, style) for text in (candidate.label, *cells)))
    return table
