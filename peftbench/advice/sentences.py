"""Advice in words: each sentence is made of figures, and says what they are of."""

import shlex

from peftbench.advice.answer import Answer
from peftbench.advice.comparison import LOCAL, SHIPPED, Candidate, Comparison
from peftbench.advice.limits import Limits, columns
from peftbench.tables.columns import COLUMNS
from peftbench.tables.table import Cell, Column, Pair, format_cell, format_interval
from peftbench.tables.verdicts import in_words


def evidence(comparison: Comparison) -> str:
    """Say what a comparison's figures are of."""
    facts = [f"{comparison.model} on {comparison.task}"]
    if comparison.task_type and comparison.training_rows:
        facts.append(f"{comparison.task_type}, {comparison.training_rows:,} training rows")
    if comparison.examples:
        facts.append(f"scores on {comparison.evaluation}, n = {comparison.examples:,}")
    if comparison.seeds:
        facts.append(f"{comparison.seeds} seed{'s' if comparison.seeds > 1 else ''}")
    if comparison.made:
        facts.append(comparison.made)
    if comparison.machine:
        facts.append(comparison.machine)
    lead = {LOCAL: comparison.source, SHIPPED: f"shipped table “{comparison.title}”"}
    return f"{lead.get(comparison.kind, comparison.source)}: {'; '.join(facts)}"


def conclusion(answer: Answer) -> str:
    """Say in one line what a comparison answers."""
    best, comparison = answer.best, answer.comparison
    if best is None:
        within = "; ".join(candidate.label for candidate in answer.within)
        if not answer.within:
            return "none of its rows keeps to the limits."
        return f"gives no scores, so names none. Within the limits: {within}."
    where = " within the limits" if answer.over or answer.lacking else ""
    text = f"{best.label}, highest {comparison.score.title}{where}: {score(best, comparison)}."
    if len(answer.within) == 1:
        text += " It is the only one."
    tied = [pair.row for pair in answer.ties]
    if answer.cheapest:
        text += f" The cheapest tied with it is {tied[0]}: {points(answer.ties[0])} points, {comparison.paired}"
        text += f" ({in_words(answer.ties[0], comparison.delta)})." if answer.ties[0].verdict else "."
        tied = tied[1:]
    if tied:
        text += f" Tied with it{' too' if answer.cheapest else f', {comparison.paired}'}: {'; '.join(tied)}."
    if answer.lower and not answer.ties and not answer.not_compared:
        text += f" The others{where} score lower, {comparison.paired}."
    if answer.not_compared and comparison.kind in (LOCAL, SHIPPED):
        why = ", for want of a second seed" if comparison.kind == LOCAL else ""
        text += f" Not compared with it{why}: {'; '.join(answer.not_compared)}."
    if comparison.kind in (LOCAL, SHIPPED):
        text += unchecked(answer)
    return text


def unchecked(answer: Answer) -> str:
    """Say in a further sentence which limits nothing was held to; empty where there are none."""
    titles = ", ".join(map(title, answer.unchecked))
    return f" Not held to a limit, for it was not measured: {titles}." if titles else ""


def unsure(answer: Answer) -> list[str]:
    """Say of each candidate that may be over a limit by which figures."""
    return [
        f"{label}: the interval of {', '.join(map(title, over))} reaches over the limit"
        for label, over in answer.unsure.items()
    ]


def title(key: str) -> str:
    """Return what a figure of `limits.figures` is called."""
    return columns(tasks=1)[key].title


def score(candidate: Candidate, comparison: Comparison) -> str:
    """Write a candidate's score with its unit and what it is of: `80.4 (78.9 … 81.9) %, 3 seeds, n = 408`."""
    cell, column = candidate.cells[comparison.primary], comparison.score
    of = [f"{cell.n} seed{'s' if cell.n > 1 else ''}"] if cell.n else []
    of += [f"n = {comparison.examples:,}"] if comparison.examples else []
    return f"{figure(cell, column)} {column.unit}".rstrip() + (f", {', '.join(of)}" if of else "")


def figure(cell: Cell, column: Column) -> str:
    """Write a figure with its interval, or with its deviation over seeds where no interval is known."""
    if cell.value is None or cell.low is None or cell.low == cell.high:
        return format_cell(cell, column)
    return format_interval((cell.value, cell.low, cell.high), column)


def points(pair: Pair) -> str:
    """Write a difference of scores with its interval."""
    return format_interval((pair.value, pair.low, pair.high), COLUMNS["difference"])


def command(candidate: Candidate) -> str:
    """Return the command that trains a candidate."""
    return f"peftbench train {shlex.join(candidate.overrides)}"


def of_other_source(answer: Answer) -> str:
    """Say what the lab or a publication answers."""
    comparison = answer.comparison
    return f"{comparison.source}, {comparison.model} on {comparison.task}: {conclusion(answer)}"


def limits_asked(limits: Limits) -> str:
    """Write the limits, empty where there are none."""
    titles = columns(limits.tasks)
    shown = [f"{titles[key].title} ≤ {limit:g} {titles[key].unit}" for key, limit in limits.by_figure.items()]
    return ", ".join(shown)
