"""Where the lab's or a publication's figures lead to another choice than the measured ones."""

from dataclasses import dataclass

from peftbench.advice.answer import Answer
from peftbench.advice.comparison import Candidate
from peftbench.tables.columns import COLUMNS
from peftbench.tables.table import format_interval


@dataclass(frozen=True)
class Difference:
    """Where somebody's figures lead elsewhere: whose, how, and whether the measured ones contradict that."""

    source: str
    text: str
    contradicts: bool


def differences(ours: Answer, theirs: Answer) -> list[Difference]:
    """Return where they differ: in the choice, judged by our own figures of theirs, and in what keeps to the limits."""
    found = []
    if theirs.best is not None and ours.best is not None:
        match = _like(theirs.best, ours)
        if match is not ours.best:
            found.append(_judged(theirs.best, match, ours, theirs.comparison.source))
    return found + [
        Difference(theirs.comparison.source, f"{one.label}: {text}", contradicts=True)
        for one in theirs.candidates
        if one is not theirs.best and (match := _like(one, ours)) is not None
        for text in _limits_told_otherwise(one, match, ours, theirs)
    ]


def _limits_told_otherwise(one: Candidate, match: Candidate, ours: Answer, theirs: Answer) -> list[str]:
    """Return the limits that a candidate keeps to by the figures of one side alone; an unknown figure tells nothing."""
    over_here, over_there = ours.over.get(match.label, {}), theirs.over.get(one.label, {})
    known_here, known_there = ours.costs[match.label], theirs.costs[one.label]
    return [
        *(f"{text} here, within it there" for key, text in over_here.items() if key in known_there.keys() - over_there),
        *(f"{text} there, within it here" for key, text in over_there.items() if key in known_here.keys() - over_here),
    ]


def _like(one: Candidate, ours: Answer) -> Candidate | None:
    """Return the candidate of ours that theirs is; its own settings are all that must agree."""
    return next((candidate for candidate in ours.candidates if candidate.is_like(one.method)), None)


def _judged(one: Candidate, match: Candidate | None, ours: Answer, source: str) -> Difference:
    """Judge their choice by what is measured of it here."""
    assert ours.best is not None
    if match is None:
        return Difference(source, f"{one.label}, which is not measured here", contradicts=False)
    if match.label in ours.over:
        text = f"{one.label}; here it does not keep to the limits: {'; '.join(ours.over[match.label].values())}"
        return Difference(source, text, contradicts=True)
    pair = next((pair for pair in [*ours.ties, *ours.lower] if pair.row == match.label), None)
    if pair is None:
        return Difference(source, f"{one.label}; here not compared with {ours.best.label}", contradicts=False)
    points = f"{format_interval((pair.value, pair.low, pair.high), COLUMNS['difference'])} points"
    lower = pair in ours.lower
    told = "it scores lower than" if lower else "it cannot be told from"
    return Difference(source, f"{one.label}; here {told} {ours.best.label}: {points}", contradicts=lower)
