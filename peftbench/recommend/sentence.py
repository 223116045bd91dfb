"""The answer in a sentence or two."""

from peftbench.advice import sentences
from peftbench.advice.answer import Answer
from peftbench.tables.verdicts import SAME, points


def headline(answer: Answer, delta: float) -> str:
    """Say which to take: one, or any of several that do not differ by more than `delta` points; and what is open."""
    best, comparison = answer.best, answer.comparison
    assert best is not None
    same = [pair.row for pair in answer.ties if pair.verdict == SAME]
    reached = sentences.score(best, comparison)
    if same:
        cheapest = answer.cheaper(same[0]) or best.label  # ties are in the order of their cost
        text = (
            f"any of these {len(same) + 1}, of which none differs from the highest by more than {points(delta)}:"
            f" {'; '.join([best.label, *same])}. The cheapest is {cheapest}, the highest {comparison.score.title} has"
            f" {best.label}: {reached}."
        )
    else:
        text = f"{best.label}: {comparison.score.title} {reached}."
    if others := [f"{pair.row} ({sentences.points(pair)})" for pair in answer.ties if pair.verdict != SAME]:
        text += f" Whether it is better than these cannot be told: {'; '.join(others)} points, {comparison.paired}."
    if not answer.ties and not answer.lower and (answer.not_compared or best.cells[comparison.primary].low is None):
        text += " Nothing says how sure that is: it takes two seeds."
    elif answer.not_compared:
        text += f" Not compared with it, for want of a second seed: {'; '.join(answer.not_compared)}."
    text += sentences.unchecked(answer)
    if over := answer.unsure.get(best.label):
        text += f" The interval of its {' and '.join(map(sentences.title, over))} reaches over the limit."
    return text
