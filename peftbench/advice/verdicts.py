"""What the lab's figures lead to, judged by the measured ones: it holds, does not hold (contradicted), or is open."""

from dataclasses import dataclass

from peftbench.advice.answer import Answer
from peftbench.advice.comparison import Candidate
from peftbench.advice.sentences import points
from peftbench.tables.claims import FAILS, HOLDS, OPEN


@dataclass(frozen=True)
class Verdict:
    """One of `source`'s choices, or what it says of a limit, with what is measured of it; `verdict` as for claims."""

    source: str
    text: str
    verdict: str


def judge(ours: Answer, theirs: Answer) -> list[Verdict]:
    """Judge another answer: its choice by our own figures of it, and which candidates keep to the limits."""
    source = theirs.comparison.source
    verdicts = []
    if theirs.best is not None and ours.best is not None:
        verdicts.append(Verdict(source, *_choice(theirs.best, ours)))
    return verdicts + [
        Verdict(source, f"{one.label}: {text}", FAILS)
        for one in theirs.candidates
        if one is not theirs.best and (match := _like(one, ours)) is not None
        for text in _limits_told_otherwise(one, match, ours, theirs)
    ]


def _choice(one: Candidate, ours: Answer) -> tuple[str, str]:
    """Return what is measured of their choice, and the verdict."""
    assert ours.best is not None
    match = _like(one, ours)
    if match is None:
        return f"{one.label} is not measured here", OPEN
    if match is ours.best:
        return f"{one.label} is the highest here too", HOLDS
    if match.label in ours.over:
        return f"{one.label} does not keep to the limits here: {'; '.join(ours.over[match.label].values())}", FAILS
    pair = next((pair for pair in [*ours.ties, *ours.lower] if pair.row == match.label), None)
    if pair is None:
        return f"{one.label} is not compared with {ours.best.label} here", OPEN
    if pair in ours.lower:
        return f"{one.label} scores lower than {ours.best.label} here: {points(pair)} points", FAILS
    return f"{one.label} cannot be told from {ours.best.label} here: {points(pair)} points", OPEN


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
