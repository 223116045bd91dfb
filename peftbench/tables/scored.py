"""What the runs of a row said about the evaluation examples, and how sure their scores are."""

from collections.abc import Sequence

import numpy as np

from peftbench.tables import statistics
from peftbench.tables.collect import Found
from peftbench.tables.columns import POINTS, in_unit
from peftbench.tables.statistics import Interval

SPLIT = "validation"


class Scored:
    """What the used runs of one row said about the evaluation examples."""

    def __init__(self, runs: Sequence[Found]) -> None:
        predictions = {run.wanted.seed: run.record.read_predictions()[SPLIT] for run in runs}
        self.seeds = list(predictions)
        first = next(iter(predictions.values()))
        self.labels = np.asarray(first.labels)
        self.predictions = np.asarray([told.predictions for told in predictions.values()])
        self.classes = len(first.probabilities[0]) if first.probabilities else None

    def score(self, metric: str, confidence: float) -> Interval:
        """Return the score with its interval, in the column's unit."""
        interval = statistics.score_interval(metric, self.labels, self.predictions, confidence, self.classes)
        return interval.scaled(in_unit(metric, 1.0))

    def difference(self, metric: str, other: "Scored", confidence: float) -> Interval | None:
        """Return the difference to another row over the seeds that both have, in points."""
        ours, theirs = self._paired(other)
        if not len(ours):
            return None
        found = statistics.difference_interval(metric, self.labels, ours, theirs, confidence, self.classes)
        return found.scaled(POINTS)

    def kept(self, metric: str, other: "Scored", confidence: float) -> Interval | None:
        """Return the score in percent of another row's, over the seeds that both have."""
        ours, theirs = self._paired(other)
        if not len(ours):
            return None
        found = statistics.ratio_interval(metric, self.labels, ours, theirs, confidence, self.classes)
        return found and found.scaled(100)

    def _paired(self, other: "Scored") -> tuple[np.ndarray, np.ndarray]:
        common = [seed for seed in self.seeds if seed in other.seeds]
        ours = self.predictions[[self.seeds.index(seed) for seed in common]]
        return ours, other.predictions[[other.seeds.index(seed) for seed in common]]
