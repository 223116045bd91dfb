"""The answer in a sentence or two, and the commands that act on it."""

from peftbench.advice import sentences
from peftbench.advice.answer import Answer


def headline(said: Answer) -> str:
    """Say which to take: one, or any of several that cannot be told apart."""
    best, comparison = said.best, said.comparison
    assert best is not None
    reached = sentences.score(best, comparison)
    if not said.ties:
        unsure = ". Nothing says how sure that is: it takes two seeds" if said.not_compared else ""
        return f"{best.label}: {comparison.score.title} {reached}{unsure}."
    tied = [best.label, *(pair.row for pair in said.ties)]
    cheapest = (said.cheapest or best).label
    return (
        f"any of these {len(tied)}: {'; '.join(tied)}. They cannot be told apart ({comparison.paired}); the cheapest is"
        f" {cheapest}, the highest {comparison.score.title} has {best.label}: {reached}."
    )
