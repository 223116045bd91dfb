"""Records made by hand: what a finished run says of itself, and one of other code."""

from dataclasses import replace
from typing import Any

from peftbench.runs.origin import code_digest
from peftbench.runs.record import Record
from peftbench.runs.result import Environment, Evaluation, Memory, Origin, Parameters, Section, Times

MODULES = ["peftbench.training.loop"]


def finished_fields(
    metrics: dict[str, dict[str, float | None]],
    examples: dict[str, int],
    *,
    share: float = 0.01,
    train: float = 50.0,
    epochs: int = 2,
    data: str = "same",
    code: str | None = None,
    commit: str | None = None,
    **sections: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return what `Record.finish` takes; `sections` are the figures of latency, training_step and switching."""
    evaluations = [
        Evaluation(split, examples[split], scores, "fp32", f"{split} of {data}", predictions="predictions.csv")
        for split, scores in metrics.items()
    ]
    return {
        "primary": next(iter(metrics["validation"])),
        "examples": examples,
        "evaluations": evaluations,
        "parameters": Parameters(1000, 1000, 10, round(1000 / share), 1010 + round(1000 / share), share, share),
        "time": Times(train + 10, train, [train / epochs] * epochs, 100.0),
        "memory": Memory(None, 2**30),
        "origin": Origin(data, code or code_digest(MODULES), MODULES),
        "environment": Environment({"peftbench": "0.1.0", "torch": "2"}, "a processor", "cpu", 1, "fp32", commit),
        **{name: Section(figures) for name, figures in sections.items()},
    }


def age(record: Record) -> None:
    """Let a record be of other code."""
    origin = record.read().origin
    assert origin is not None
    record.update(origin=replace(origin, code="0ld"))
