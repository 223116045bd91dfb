"""Advice as plain data, for JSON: the same figures and sentences that the terminal shows."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from peftbench.advice import sentences
from peftbench.advice.advise import Advice
from peftbench.advice.answer import Answer
from peftbench.advice.lab import NO_DECISION_TABLES
from peftbench.advice.limits import Limits
from peftbench.files import plain


def plain_advice(advice: Sequence[Advice], limits: Limits) -> Any:
    """Return all of the advice: each question with its evidence, candidates and answers."""
    return plain(
        {
            "limits": asdict(limits),
            "questions": [
                {
                    "question": one.question,
                    **_answer(one.answer),
                    "beside": [_answer(other) for other in one.beside],
                    "verdicts": [asdict(found) for found in one.verdicts],
                    "notes": one.notes,
                }
                for one in advice
            ],
            "notes": [NO_DECISION_TABLES],
        }
    )


def _answer(said: Answer) -> dict[str, Any]:
    comparison = asdict(said.comparison)
    return {
        "answer": said.best and said.best.label,
        "sentence": sentences.conclusion(said),
        "command": sentences.command(said.best) if said.best and said.best.overrides else None,
        "cheapest_tie": said.cheapest and said.cheapest.label,
        "command_of_cheapest_tie": sentences.command(said.cheapest) if said.cheapest else None,
        "ties": [asdict(pair) for pair in said.ties],
        "lower": [asdict(pair) for pair in said.lower],
        "not_compared": said.not_compared,
        "front": said.front,
        "over": said.over,
        "lacking": said.lacking,
        "unsure": said.unsure,
        "unchecked": said.unchecked,
        "candidates": [
            {**asdict(one), "costs": {key: asdict(cell) for key, cell in said.costs[one.label].items()}}
            for one in said.candidates
        ],
        "evidence": {key: value for key, value in comparison.items() if key not in ("candidates", "pairs")},
    }
