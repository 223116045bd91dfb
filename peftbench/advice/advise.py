"""Answer a query: find the nearest evidence, and say what it, the lab and the literature answer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import exp, inf, log
from pathlib import Path

from peftbench.advice.answer import Answer, answer
from peftbench.advice.comparison import (
    LAB,
    LOCAL,
    PUBLISHED,
    SHIPPED,
    Candidate,
    Comparison,
    task_type,
)
from peftbench.advice.lab import read_lab
from peftbench.advice.limits import Limits, columns
from peftbench.advice.records import LocalRuns, compare_local_runs, find_local_runs
from peftbench.advice.shipped import read_shipped
from peftbench.advice.verdicts import Verdict, judge
from peftbench.config.groups import read_group
from peftbench.errors import UserError
from peftbench.tables.table import format_cell


@dataclass(frozen=True)
class Query:
    """What a user wants to know: for which task and within which limits.

    `task_type` is as `comparison.task_type` gives it, None for any; `size` is the number of training rows.
    """

    limits: Limits = Limits()
    task_type: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Advice:
    """One question with its answers.

    Attributes:
        question: in words. answer: by measured figures.
        other_sources: what the lab's and published figures answer.
        verdicts: on what the lab's lead to, by the measured figures.
        notes: how near the evidence is to the query, and what it lacks.
    """

    question: str
    answer: Answer
    other_sources: list[Answer] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def advise(query: Query, output_dir: Path) -> list[Advice]:
    """Answer which method, and then which bottleneck, rank or other setting of it.

    Raises UserError where there is no evidence for such a task, or where no method keeps to the limits.
    """
    shipped = read_shipped()
    measured = [comparison for comparison in shipped if comparison.kind == SHIPPED]
    others = [*read_lab(), *(comparison for comparison in shipped if comparison.kind == PUBLISHED)]
    local, notes = _local_comparisons(query, output_dir)
    measured = [*local, *measured]
    fitting = [
        comparison
        for comparison in measured
        if query.task_type in (None, comparison.task_type) and len(comparison.methods) > 1
    ]
    if not fitting:
        raise UserError(_no_evidence(query, notes or [f"no such runs under {output_dir}"], measured))
    if query.task_type is None:  # of what ships, texts are meant
        of_texts = [comparison for comparison in fitting if comparison.kind == LOCAL or comparison.is_of_texts]
        fitting = of_texts or fitting
    nearest = min(fitting, key=lambda comparison: (_preference(comparison), _distance(comparison, query)))
    if nearest.kind != LOCAL and any(comparison.kind == LOCAL for comparison in fitting):
        notes.append(f"your own records under {output_dir} have one seed a method, which tells none from another")
    found = answer(nearest, query.limits)
    if found.best is None:
        raise UserError(_none_within(found, query.limits))
    if not nearest.is_of_texts:
        others = []
        notes.append("what the lab and the literature measured, as far as it is known here, is of texts: left out")
    of_methods = [(comparison, comparison.candidates) for comparison in others if len(comparison.methods) > 1]
    first = _advice("Which method?", found, query, of_methods, notes)
    return [first, *_settings(query, found, measured, others)]


def _preference(comparison: Comparison) -> int:
    """Rank evidence: the user's own, then what ships, then the user's of one seed, which tells no methods apart."""
    if comparison.kind != LOCAL:
        return 1
    return 0 if (comparison.seeds or 0) > 1 else 2


def _local_comparisons(query: Query, output_dir: Path) -> tuple[list[Comparison], list[str]]:
    """Return the user's own comparisons, the nearest first, up to one that tells methods apart, and what is to say."""
    groups = find_local_runs(output_dir)
    fitting = [group for group in groups if query.task_type in (None, group.task_type)]
    fitting.sort(key=lambda group: _distance(group, query))
    found: list[Comparison] = []
    for number, group in enumerate(fitting):
        comparison = compare_local_runs(group, output_dir)
        found += [comparison] if comparison else []
        if comparison and len(comparison.methods) > 1 and _preference(comparison) == 0:
            more = [other.name for other in groups if other not in fitting[: number + 1] and len(other.methods) > 1]
            choosing = "your records hold more, which --task-type and --size choose"
            return found, [f"{choosing}: {', '.join(more)}"] if more else []
    if not fitting or any(len(comparison.methods) > 1 for comparison in found):
        return found, []
    return found, [
        f"your own records under {output_dir} compare no methods: {'; '.join(group.lack for group in fitting)}"
    ]


def _no_evidence(query: Query, reasons: Sequence[str], measured: Sequence[Comparison]) -> str:
    """Say that nothing was measured on a kind of task, and what would be."""
    tasks = [config["name"] for config in read_group("task") if task_type(config) == query.task_type]
    types = ", ".join(sorted({comparison.task_type for comparison in measured}))
    return (
        f"nothing was measured on tasks of type {query.task_type}: {'; '.join(reasons)}, and what is shipped is of type"
        f" {types}. Train some, e.g. peftbench train -m method=head,lora seed=0,1,2 task={tasks[0]}, or leave"
        " --task-type out"
    )


def _distance(evidence: Comparison | LocalRuns, query: Query) -> tuple[float, int]:
    """Return how far evidence is off the query's size, as a factor's logarithm; then the one of more methods."""
    if query.size is None:
        return 0.0, -len(evidence.methods)
    return abs(log(query.size / evidence.training_rows)) if evidence.training_rows else inf, -len(evidence.methods)


def _settings(
    query: Query, found: Answer, measured: Sequence[Comparison], others: Sequence[Comparison]
) -> list[Advice]:
    """Answer which setting of the method that was answered; which bottleneck of adapters in any case."""
    assert found.best is not None
    method = found.best.method["name"]
    advice, answered = [], set[str]()
    kind = found.comparison.task_type
    there = sorted(measured, key=lambda other: (_preference(other), other.task_type != kind, _distance(other, query)))
    for comparison in [found.comparison, *there]:
        by_method = _of_one_method(comparison)
        for name in sorted(by_method, key=lambda name: name != method):
            varied = comparison.varied(by_method[name])
            wanted = name == method or ("bottleneck" in varied and "bottleneck" not in answered)
            if wanted and varied - answered:
                answered |= varied
                question = f"Which {', '.join(sorted(varied)).replace('_', ' ')} of {name}?"
                setting_answer = answer(comparison, query.limits, by_method[name])
                advice.append(_advice(question, setting_answer, query, _restricted(others, varied), []))
    return sorted(advice, key=lambda item: item.answer.candidates[0].method["name"] != method)


def _of_one_method(comparison: Comparison) -> dict[str, list[Candidate]]:
    """Return the candidates of each method that has several."""
    names = [str(candidate.method["name"]) for candidate in comparison.candidates]
    return {
        name: [candidate for candidate in comparison.candidates if candidate.method["name"] == name]
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    }


def _restricted(others: Iterable[Comparison], varied: set[str]) -> list[tuple[Comparison, list[Candidate]]]:
    """Return what of other comparisons is about one of these settings, method by method."""
    return [
        (comparison, candidates)
        for comparison in others
        for candidates in _of_one_method(comparison).values()
        if comparison.varied(candidates) & varied
    ]


def _advice(
    question: str, found: Answer, query: Query, others: Iterable[tuple[Comparison, list[Candidate]]], notes: list[str]
) -> Advice:
    other_sources = [answer(comparison, query.limits, candidates) for comparison, candidates in others]
    lab = [other for other in other_sources if other.comparison.kind == LAB]
    return Advice(
        question=question,
        answer=found,
        other_sources=other_sources,
        verdicts=[verdict for other in lab for verdict in judge(found, other)],
        notes=[*notes, *_fit(found.comparison, query), *found.comparison.notes],
    )


def _fit(comparison: Comparison, query: Query) -> list[str]:
    """Say how far the evidence is off the query."""
    notes = []
    if query.task_type not in (None, comparison.task_type):
        notes.append(f"this evidence is of a {comparison.task_type} task, not of a {query.task_type} one")
    if query.size is not None:
        factor = exp(_distance(comparison, query)[0])
        if factor > 1:
            more = "more" if (comparison.training_rows or 0) > query.size else "fewer"
            notes.append(
                f"nearest evidence to {query.size:,} training rows: {comparison.training_rows:,}, {factor:.1f} times"
                f" {'as many' if more == 'more' else 'fewer'}"
            )
    return notes


def _none_within(found: Answer, limits: Limits) -> str:
    """Say that no method keeps to the limits, and how near the nearest come."""
    nearest = []
    for key, limit in limits.by_figure.items():
        having = {label: cell for label, costs in found.costs.items() if (cell := costs.get(key)) is not None}
        if having:
            label = min(having, key=lambda label: having[label].value or 0.0)
            column = columns(limits.tasks)[key]
            shown = f"{format_cell(having[label], column)} {column.unit}"
            nearest.append(f"{column.title} at most {limit:.4g}, lowest {shown} ({label})")
    of = found.comparison
    evidence = f"{of.task} from {of.model}, {of.source}"
    return f"no method keeps to {'; '.join(nearest)}, on {evidence}. Allow more, or measure more"
