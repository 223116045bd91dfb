"""What finished runs say, read and checked: a damaged or odd one is left out with the reason, never the table."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from peftbench.errors import UserError
from peftbench.runs.find import UNREADABLE
from peftbench.runs.predictions import Predictions
from peftbench.tables.collect import RunState
from peftbench.tables.columns import MEASURED, PER_RUN, measured
from peftbench.tables.spec import EvaluationSpec
from peftbench.tasks.metrics import CORRELATIONS

Key = tuple[Path, EvaluationSpec]


class Evidence(NamedTuple):
    """What a run answered for the evaluation examples, and its training curve: an epoch with its scores a row."""

    predictions: Predictions
    history: list[dict[str, Any]]


class OddRecordError(Exception):
    """Why a run's record cannot be used, in words; to train it again mends it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}. Delete its folder and train it again; `train` does both with force=true.")


def read_evidence(found: Sequence[RunState]) -> tuple[list[RunState], dict[Key, Evidence]]:
    """Return the runs, those that cannot be used marked so with the reason, and by its key what each used one says.

    Runs of one task must have answered for the same examples; where they have not, most of them are right.
    """
    evidence, reasons = {}, {}
    for run in found:
        if run.used and run.key not in evidence:
            try:
                _check_figures(run)
                evidence[run.key] = Evidence(_predictions(run), _history(run))
            except (UserError, OddRecordError) as error:
                reasons[run.key] = str(error)
    reasons |= _of_other_examples([run for run in found if run.key in evidence], evidence)
    checked = [
        replace(run, status=UNREADABLE, reason=reason, used=False)
        if run.used and (reason := reasons.get(run.key)) is not None
        else run
        for run in found
    ]
    return checked, {key: found for key, found in evidence.items() if key not in reasons}


def _check_figures(run: RunState) -> None:
    """Raise OddRecordError where a figure that the record should hold is none."""
    assert run.result is not None
    for key in (*PER_RUN, *MEASURED):
        try:
            shown = run.planned.evaluation.of(run.result)
            figure = PER_RUN[key](run.result) if key in PER_RUN else measured(key, run.result, shown=shown)
            numbers = figure if isinstance(figure, tuple) else (figure,)
            sound = all(number is None or math.isfinite(number) for number in numbers)
        except (ArithmeticError, AttributeError, IndexError, LookupError, TypeError, ValueError):
            sound = False
        if not sound:
            raise OddRecordError(f"{run.record.result_path} is damaged: its {key.replace('_', ' ')} is no number")


def _predictions(run: RunState) -> Predictions:
    evaluation = run.planned.evaluation.of(run.result) if run.result else None
    if evaluation is None:
        raise OddRecordError(f"{run.record.result_path} has no scores on {run.planned.evaluation}")
    predictions = run.record.predictions(evaluation)
    path = run.record.folder / (evaluation.predictions or "")
    if not len(predictions.predictions):
        raise OddRecordError(f"{path} has no rows of {run.planned.evaluation}")
    if predictions.form != "one":  # read into arrays, whose numbers have been checked
        return predictions
    if predictions.labels is None or None in predictions.labels:
        raise OddRecordError(f"{path} is damaged: a label is missing")
    given = [*predictions.labels, *predictions.predictions]
    if not set(run.planned.config["task"]["metrics"]) <= set(CORRELATIONS):
        classes = range(len(predictions.probabilities[0]) if predictions.probabilities else max(given) + 1)
        if wrong := [value for value in given if value not in classes]:
            raise OddRecordError(f"{path} is damaged: {wrong[0]} is no class")
    rows = predictions.probabilities or []
    if not all(map(math.isfinite, chain(given, *rows))) or len({len(row) for row in rows}) > 1:
        raise OddRecordError(f"{path} is damaged: a score or a probability is no number")
    return predictions


def _history(run: RunState) -> list[dict[str, Any]]:
    run.record.check([run.record.history_path.name], run.result)
    rows = [row for row in run.record.history() if "validation" in row]
    if not all(isinstance(row.get("epoch"), int) and isinstance(row["validation"], Mapping) for row in rows):
        raise OddRecordError(f"{run.record.history_path} is damaged: a row has no epoch or no scores")
    return rows


def _of_other_examples(found: Sequence[RunState], evidence: Mapping[Key, Evidence]) -> dict[Key, str]:
    """Say of runs, by their key, that their examples are not those of most runs of their task."""
    by_task: dict[str, Counter[tuple[Any, ...]]] = {}
    for run in found:
        labels = _comparable(evidence[run.key].predictions)
        by_task.setdefault(run.planned.config["task"]["name"], Counter())[labels] += 1
    reasons = {}
    for run in found:
        labels = _comparable(evidence[run.key].predictions)
        most = by_task[run.planned.config["task"]["name"]].most_common(1)[0][0]
        split = run.planned.evaluation.split
        if len(labels) != len(most):
            reasons[run.key] = f"it has {len(labels):,} examples of {split}, the other runs {len(most):,}"
        elif labels != most:
            reasons[run.key] = f"its labels of {split} are not those of the other runs"
    return reasons


def _comparable(predictions: Predictions) -> tuple[Any, ...]:
    """Return the labels so that they can be compared, one entry an example."""
    if predictions.form == "one":
        return tuple(predictions.labels)
    return tuple(label.tobytes() for label in predictions.labels)
