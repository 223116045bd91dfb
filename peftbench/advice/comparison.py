"""Methods compared on one task from one model: what all advice is read off, wherever the figures come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peftbench.tables.columns import COLUMNS
from peftbench.tables.table import Cell, Column, Pair
from peftbench.tables.verdicts import DELTA
from peftbench.tasks.metrics import CORRELATIONS

# what `task_type` says of tasks on texts
TEXT_TYPES = ("classification", "pair", "regression")
LOCAL, SHIPPED, PUBLISHED, LAB = "own records", "shipped", "published", "lab"


@dataclass(frozen=True)
class Candidate:
    """A method at one setting.

    Attributes:
        label: as its table calls it. overrides: what trains it, the seed apart; none for published figures.
        method: its settings, its name among them; of published figures those that are known.
        cells: its figures by column, see `tables.columns`.
    """

    label: str
    overrides: list[str]
    method: dict[str, Any]
    cells: dict[str, Cell]

    def is_like(self, method: Mapping[str, Any]) -> bool:
        """Tell whether it has these settings, as far as its own are known."""
        return all(self.method.get(key, value) == value for key, value in method.items())


@dataclass(frozen=True)
class Comparison:
    """Candidates measured under the same conditions.

    Attributes:
        kind: own records | shipped | published | lab. title: what is compared, e.g. Bottleneck size.
        source: the command, the folder or the publication that the figures come from.
        model, task: their names. task_type: see `task_type`; empty where figures are means over several tasks.
        evaluation: the split that scores are on. primary: the column of the score that decides.
        candidates: see there.
        pairs: differences of their scores; pairs that are not in it were not compared.
        paired: how sure the intervals of `pairs` are: `95 % for all 15 pairs together`.
        delta: within so many points their verdicts call scores not different.
        training_rows: None where it is not known, or not one number. examples: how many the scores are of.
        seeds: the most that a candidate has. made: when the last run ended (ISO date). machine: device and threads.
        backbone: its number of parameters.
        notes: what else a reader must know: what was left out, what is mixed.
    """

    kind: str
    title: str
    source: str
    model: str
    task: str
    task_type: str
    evaluation: str
    primary: str
    candidates: list[Candidate]
    pairs: list[Pair] = field(default_factory=list)
    paired: str = ""
    delta: float = DELTA
    training_rows: int | None = None
    examples: int | None = None
    seeds: int | None = None
    made: str | None = None
    machine: str | None = None
    backbone: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def score(self) -> Column:
        """The column of the score that decides."""
        return COLUMNS.get(self.primary) or Column(self.primary, self.primary)

    @property
    def is_of_texts(self) -> bool:
        """Whether it was measured on a task of texts."""
        return self.task_type in TEXT_TYPES

    @property
    def methods(self) -> set[str]:
        """The names of the methods that have a figure."""
        return {str(candidate.method["name"]) for candidate in self.candidates if candidate.cells}

    def difference(self, label: str, other: str) -> Pair | None:
        """Return by how much one candidate scores higher than another, in points; None where that was not compared."""
        for pair in self.pairs:
            if (pair.row, pair.other) == (label, other):
                return pair
            if (pair.row, pair.other) == (other, label):
                return pair.reversed()
        return None

    def varied(self, candidates: Sequence[Candidate]) -> set[str]:
        """Return the settings in which candidates of one method differ."""
        keys = {key for candidate in candidates for key in candidate.method}
        return {key for key in keys if len({repr(candidate.method.get(key)) for candidate in candidates}) > 1}


def task_type(task: Mapping[str, Any]) -> str:
    """Return what kind of answer a task's config asks for.

    classification of a text, classification of a pair of texts (pair), regression, or the task's own kind where it is
    not about text.
    """
    kind = str(task.get("kind") or "text")
    if kind != "text":
        return kind
    if set(task.get("metrics") or ()) and set(task["metrics"]) <= set(CORRELATIONS):
        return "regression"
    return "pair" if len(task.get("text") or ()) == 2 else "classification"
