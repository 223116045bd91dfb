"""What the runs of a row said about the evaluation examples, and how sure their scores are."""

from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np

from peftbench.runs.predictions import Predictions
from peftbench.tables import statistics
from peftbench.tables.bootstrap import RESAMPLES, score_draws
from peftbench.tables.collect import RunState
from peftbench.tables.columns import PERCENT, POINTS, in_unit
from peftbench.tables.dense_draws import box_draws, pixel_draws
from peftbench.tables.evidence import Evidence, Key
from peftbench.tables.simultaneous import Joint
from peftbench.tables.statistics import Interval
from peftbench.tables.unseen_examples import score_step, with_unseen_examples


class RowScores:
    """What the used runs of one row said about the evaluation examples."""

    def __init__(self, predictions: Mapping[int, Predictions], draws: int = RESAMPLES, label: str = "") -> None:
        """Take what was said.

        Args:
            predictions: by seed, of the same examples. draws: of the bootstrap, as in `score_draws`.
            label: of the row in its table; one without has the bootstrap's draws alone (`unseen_examples.py`).
        """
        self.label = label
        self.seeds = list(predictions)
        first = next(iter(predictions.values()))
        self.form = first.form
        self.labels = np.asarray(first.labels)
        self.predictions = [np.asarray(of_seed.predictions) for of_seed in predictions.values()]
        self.classes = len(first.probabilities[0]) if first.probabilities else None
        self.probabilities = [of_seed.probabilities for of_seed in predictions.values()]
        self._resamples = draws
        self._draws: dict[str, np.ndarray] = {}
        self._with_unseen: dict[str, np.ndarray] = {}

    def first(self, count: int | None, *metrics: str) -> "RowScores":
        """Return the row with its first seeds alone, drawn for `metrics`."""
        return self._only(slice(count), {metric: self._bootstrap(metric)[:, :count] for metric in metrics})

    def _only(self, seeds: slice, draws: dict[str, np.ndarray]) -> "RowScores":
        part = copy(self)
        part.seeds, part.predictions = self.seeds[seeds], self.predictions[seeds]
        part.probabilities = self.probabilities[seeds]
        part._draws, part._with_unseen = draws, {}
        return part

    def labelled(self, label: str) -> "RowScores":
        """Return the row as one of a table, under its own label where it has one."""
        if self.label:
            return self
        row = copy(self)
        row.label, row._with_unseen = label, {}
        return row

    def take_draws(self, before: "RowScores", metric: str) -> None:
        """Draw for one metric, the first seeds' from the row as it was before others were added."""
        count = len(before.seeds)
        if before.seeds == self.seeds[:count]:
            drawn = [before._bootstrap(metric)]
            if count < len(self.seeds):
                drawn.append(self._only(slice(count, None), {})._bootstrap(metric))
            self._draws[metric] = np.concatenate(drawn, axis=1)

    def score(self, metric: str, joint: Joint) -> Interval:
        """Return the score with its interval, in the column's unit; `joint` of the table's comparisons."""
        interval = statistics.score_interval(self.draws(metric), joint.confidence, joint.pool(metric))
        return interval.within(least_score(metric), 1.0).scaled(in_unit(metric, 1.0))

    def difference(self, metric: str, other: "RowScores", joint: Joint) -> Interval | None:
        """Return the difference to another row in points; None where it is of other examples."""
        if not self.has_examples_of(other):
            return None
        draws = self.draws(metric), other.draws(metric)
        widest = 1.0 - least_score(metric)
        interval = statistics.difference_interval(*draws, joint.confidence, joint.pool(metric))
        return interval.within(-widest, widest).scaled(POINTS)

    def kept(self, metric: str, other: "RowScores", joint: Joint) -> Interval | None:
        """Return the score in percent of another row's."""
        if not self.has_examples_of(other):
            return None
        draws = self.draws(metric), other.draws(metric)
        found = statistics.ratio_interval(*draws, joint.confidence, joint.pool(metric))
        return found and found.scaled(100)

    def has_examples_of(self, other: "RowScores") -> bool:
        """Tell whether another row is of the same examples, so that the two can be compared."""
        return np.array_equal(self.labels, other.labels)

    def draws(self, metric: str) -> np.ndarray:
        """Return (1 + draws, seeds) scores; drawn once for all comparisons of a table."""
        if not self.label:
            return self._bootstrap(metric)
        if metric not in self._with_unseen:
            step = score_step(metric, self.labels, self.classes)
            self._with_unseen[metric] = with_unseen_examples(self._bootstrap(metric), step, self.label)
        return self._with_unseen[metric]

    def _bootstrap(self, metric: str) -> np.ndarray:
        if metric not in self._draws:
            if self.form == "pixels":
                drawn = pixel_draws(np.stack(self.predictions), self._resamples)
            elif self.form == "boxes":
                drawn = box_draws(self.labels, self.predictions, self._resamples)
            else:
                answers = np.asarray(self.probabilities if metric == "roc_auc" else self.predictions)
                drawn = {metric: score_draws(metric, self.labels, answers, self.classes, self._resamples)}
            self._draws |= {name: statistics.centred(draws) for name, draws in drawn.items()}
        return self._draws[metric]


def score_rows(found: Sequence[RunState], evidence: Mapping[Key, Evidence]) -> dict[str, RowScores]:
    """Return by label what the used runs of each row said; runs and evidence as `read_evidence` returns them."""
    answers: dict[str, dict[int, Predictions]] = {}
    for run in found:
        if run.used:
            answers.setdefault(run.planned.label, {})[run.planned.seed] = evidence[run.key].predictions
    return {label: RowScores(of_row, label=label) for label, of_row in answers.items()}


def least_score(metric: str) -> float:
    """Return the least that a score can be; the most is 1."""
    return 0.0 if metric in PERCENT or metric == "roc_auc" else -1.0
