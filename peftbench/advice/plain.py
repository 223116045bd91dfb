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
                    "question": item.question,
                    **_answer(item.answer),
                    "beside": [_answer(other) for other in item.other_sources],
                    "verdicts": [asdict(found) for found in item.verdicts],
                    "notes": item.notes,
                }
                for item in advice
            ],
            "notes": [NO_DECISION_TABLES],
        }
    )


def _answer(answer: Answer) -> dict[str, Any]:
    comparison = asdict(answer.comparison)
    return {
        "answer": answer.best and answer.best.label,
        "sentence": sentences.conclusion(answer),
        "command": sentences.command(answer.best) if answer.best and answer.best.overrides else None,
        "cheapest_tie": answer.cheapest and answer.cheapest.label,
        "command_of_cheapest_tie": sentences.command(answer.cheapest) if answer.cheapest else None,
        "ties": [asdict(pair) for pair in answer.ties],
        "lower": [asdict(pair) for pair in answer.lower],
        "not_compared": answer.not_compared,
        "front": answer.front,
        "over": answer.over,
        "lacking": answer.lacking,
        "unsure": answer.unsure,
        "unchecked": answer.unchecked,
        "candidates": [
            {**asdict(candidate), "costs": {key: asdict(cell) for key, cell in answer.costs[candidate.label].items()}}
            for candidate in answer.candidates
        ],
        "evidence": {key: value for key, value in comparison.items() if key not in ("candidates", "pairs")},
    }
