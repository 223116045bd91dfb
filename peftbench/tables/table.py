"""What a built table is: plain data that every format is written from; it knows neither records nor torch."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Column:
    """A kind of figure.

    Attributes:
        key: its name in specs, CSV and JSON.
        title: what readers see, without the unit.
        unit: behind the title: "%", "s", "ms", "×", "MiB", or "".
        digits: decimals shown.
        interval: whether cells show their interval instead of the deviation.
    """

    key: str
    title: str
    unit: str = ""
    digits: int = 1
    interval: bool = False


@dataclass(frozen=True)
class Cell:
    """One figure of one row.

    Attributes:
        value: to sort and plot by, in the column's unit; None where there is none yet.
        sd: standard deviation over the seeds; None for one seed, and for what does not vary with it.
        n: how many seeds it is of; of a difference those of the row that has fewer.
        low, high: its interval where one was computed (95 % for all comparisons of the table together).
        differs: whether that interval excludes "no difference to the baseline"; None where that is not asked.
        lab: the lab's figure. verdict: holds | does not hold | cannot be told.
        published: the literature's figure as text, with its source.
    """

    value: float | None = None
    sd: float | None = None
    n: int = 0
    low: float | None = None
    high: float | None = None
    differs: bool | None = None
    lab: float | None = None
    verdict: str | None = None
    published: str | None = None


@dataclass(frozen=True)
class Pair:
    """How much higher one row scores than another, in points of the primary score.

    Attributes:
        row, other: labels. value: score of `row` − score of `other`.
        low, high: its interval, 95 % for all comparisons of the table together; None where a row has one seed.
        verdict: better | lower | not different | cannot be told, see `tables.verdicts`; None where none was asked for.
        needs_seeds: seeds per row that would decide it with a power of 80 %; None if no number would.
        needs_examples: then, the examples that would, with unlimited seeds.
        single: a row has one seed, so that the interval leaves the variance over seeds out and is too narrow.
        futile: the chance to decide it on these examples, with any number of seeds, is below 10 %.
    """

    row: str
    other: str
    value: float
    low: float | None = None
    high: float | None = None
    verdict: str | None = None
    needs_seeds: int | None = None
    needs_examples: int | None = None
    single: bool = False
    futile: bool = False

    def reversed(self) -> "Pair":
        """Return the same seen from the other row."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        verdict = {"better": "lower", "lower": "better"}.get(self.verdict or "", self.verdict)
        return replace(self, row=self.other, other=self.row, value=-self.value, low=low, high=high, verdict=verdict)


@dataclass(frozen=True)
class RunPoint:
    """One run of a row.

    Attributes:
        id, seed, folder: which run; the folder as the user can open it.
        status: missing | stale | running | finished | failed | oom | interrupted | unreadable.
        reason: the error of a failed run, or in what a stale one differs.
        used: whether the row's figures contain it.
        command: the command that makes it.
        config: its composed config, plain. history: one entry an epoch: epoch, step, loss, seconds, validation.
        metrics: split → metric → value, as recorded (accuracy 0 … 1).
    """

    id: str
    seed: int
    folder: str
    status: str
    reason: str | None = None
    used: bool = False
    command: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        label, overrides: its name, and what makes its runs. baseline: whether differences are to it.
        cells: every figure there is, shown or not. runs: one entry a seed.
        group: letters; rows that share one cannot be told apart, see `tables.groups`.
        against: the difference of its primary score to the baseline's; None where they are not compared.
    """

    label: str
    overrides: list[str]
    baseline: bool
    cells: dict[str, Cell]
    runs: list[RunPoint]
    group: str = ""
    against: Pair | None = None


@dataclass(frozen=True)
class Claim:
    """Something claimed, what was measured, and the verdict: holds | does not hold | cannot be told | …

    needs: what would decide it, empty where that is not known or not needed.
    """

    text: str
    measured: str
    verdict: str
    needs: str = ""


@dataclass(frozen=True)
class Tuned:
    """How a row came by its settings: those of its best trial.

    Attributes:
        row: its label. settings: overrides that the best trial adds to the row's own.
        scores: of its trials on validation, in the primary column's unit. failed: how many trials have none.
        expected: the expected best of 1, 2 … trials, see `tables.expected_best`.
    """

    row: str
    settings: list[str]
    scores: list[float]
    failed: int
    expected: list[float]


@dataclass(frozen=True)
class Table:
    """A table as it stands.

    Attributes:
        name, title: e.g. lab/bottleneck, and its heading.
        command: what makes it. model, task, seeds: of what. baseline: that row's label.
        primary: key of the score that rows are judged by. examples: how many it is over.
        ceiling: what human judges score, in the primary column's unit; None where that is not known.
        evaluation: what they are of: validation, test, merged, with layers dropped.
        columns: those shown, in order. all_columns: those that cells may have, shown or not.
        pairs: the differences of every two rows with scores.
        conclusion: the best row and the cheapest that cannot be told from it; empty where no row has a score.
        reading: how to read the figures. notes: missing, stale and failed runs with the command that mends it.
        environment: versions, devices, threads and commits of the runs it is made of; each a sorted list.
        delta: the difference in points that rows which are not different do not exceed.
        tuning: how its rows were tuned, where they were.
    """

    name: str
    title: str
    command: str
    model: str
    task: str
    seeds: list[int]
    baseline: str
    primary: str
    examples: int | None
    ceiling: float | None
    evaluation: str
    columns: list[Column]
    all_columns: list[Column]
    rows: list[Row]
    claims: list[Claim]
    pairs: list[Pair]
    conclusion: str
    reading: list[str]
    notes: list[str]
    environment: dict[str, list[str]]
    delta: float = 1.0
    tuning: list[Tuned] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return asdict(self)


def format_cell(cell: Cell, column: Column) -> str:
    """Write a cell's figure: `77.5 ± 1.0`, `−1.2 (−3.4 … 0.9)`, `–` where there is none."""
    if cell.value is None:
        return "–"
    if column.interval:
        return format_interval((cell.value, cell.low, cell.high), column)
    text = _number(cell.value, column)
    return text if cell.sd is None else f"{text} ± {_number(cell.sd, column)}"


def format_interval(interval: tuple[float, float | None, float | None], column: Column) -> str:
    """Write (estimate, low, high) as `−1.2 (−3.4 … 0.9)`; an exact figure, and one without an interval, as itself."""
    estimate, low, high = interval
    if low is None or high is None or low == high:
        return _number(estimate, column)
    return f"{_number(estimate, column)} ({_number(low, column)} … {_number(high, column)})"


def _number(value: float, column: Column) -> str:
    text = f"{value:,.{column.digits}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")


def heading(column: Column) -> str:
    """Write a column's heading with its unit."""
    return f"{column.title}, {column.unit}" if column.unit else column.title
