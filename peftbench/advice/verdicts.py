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


def judge(measured: Answer, lab: Answer) -> list[Verdict]:
    """Judge the lab's answer: its choice by the measured figures of it, and which candidates keep to the limits."""
    source = lab.comparison.source
    verdicts = []
    if lab.best is not None and measured.best is not None:
        verdicts.append(Verdict(source, *_choice(lab.best, measured)))
    return verdicts + [
        Verdict(source, f"{candidate.label}: {text}", FAILS)
        for candidate in lab.candidates
        if candidate is not lab.best and (match := _like(candidate, measured)) is not None
        for text in _contradicted_limits(candidate, match, measured, lab)
    ]


def _choice(choice: Candidate, measured: Answer) -> tuple[str, str]:
    """Return what is measured of the lab's choice, and the verdict."""
    assert measured.best is not None
    match = _like(choice, measured)
    if match is None:
        return f"{choice.label} is not measured here", OPEN
    if match is measured.best:
        return f"{choice.label} is the highest here too", HOLDS
    if match.label in measured.over:
        return (
            f"{choice.label} does not keep to the limits here: {'; '.join(measured.over[match.label].values())}",
            FAILS,
        )
    pair = next((pair for pair in [*measured.ties, *measured.lower] if pair.row == match.label), None)
    if pair is None:
        return f"{choice.label} is not compared with {measured.best.label} here", OPEN
    if pair in measured.lower:
        return f"{choice.label} scores lower than {measured.best.label} here: {points(pair)} points", FAILS
    return f"{choice.label} cannot be told from {measured.best.label} here: {points(pair)} points", OPEN


def _contradicted_limits(candidate: Candidate, match: Candidate, measured: Answer, lab: Answer) -> list[str]:
    """Return the limits that a candidate keeps to by the figures of one side alone; an unknown figure tells nothing."""
    over_here, over_there = measured.over.get(match.label, {}), lab.over.get(candidate.label, {})
    known_here, known_there = measured.costs[match.label], lab.costs[candidate.label]
    return [
        *(f"{text} here, within it there" for key, text in over_here.items() if key in known_there.keys() - over_there),
        *(f"{text} there, within it here" for key, text in over_there.items() if key in known_here.keys() - over_here),
    ]


def _like(lab_candidate: Candidate, measured: Answer) -> Candidate | None:
    """Return the measured candidate that the lab's is; the settings the lab names are all that must agree."""
    return next((candidate for candidate in measured.candidates if candidate.is_like(lab_candidate.method)), None)
