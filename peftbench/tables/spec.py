"""A table's spec: the rows, what is shown of them, and what the lab and the literature say."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from peftbench.config.schema import MAX_SEED
from peftbench.errors import UserError, nearest
from peftbench.files import is_number
from peftbench.runs.result import Evaluation, Result
from peftbench.tables.columns import SCORES, SIGNED
from peftbench.tables.spec_form import by_column, check_column, check_keys, check_list, figures, label_of
from peftbench.tables.verdicts import DELTA, LEAST_DELTA

SPLITS = ("validation", "test")


@dataclass(frozen=True)
class EvaluationSpec:
    """Which of a run's evaluations a table shows: see `runs.result.Evaluation`."""

    split: str = "validation"
    merged: bool = False
    dropped_layers: int = 0
    kept_adapters: int | None = None

    def of(self, result: Result) -> Evaluation | None:
        """Return a run's evaluation of this kind, None where it has none."""
        return result.evaluation(self.split, self.merged, self.dropped_layers, self.kept_adapters)

    def __str__(self) -> str:
        layers = "layer" if self.dropped_layers == 1 else "layers"
        dropped = f", {self.dropped_layers} {layers} dropped" if self.dropped_layers else ""
        kept = f", {self.kept_adapters} adapter{'s'[: self.kept_adapters != 1]} kept" if self.kept_adapters else ""
        return f"{self.split}{', merged' if self.merged else ''}{dropped}{kept}"


@dataclass(frozen=True)
class RowSpec:
    """A row: its label, the overrides that make its runs, and figures by column key.

    `evaluation` says what its evaluation has that the table's has not.
    """

    label: str
    overrides: list[str]
    lab: dict[str, float] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ClaimSpec:
    """Something said about a column, by a paper or the lab, in a form that measured intervals can judge.

    Either `ascending`, labels of rows whose figure is to rise from each to the next; or `row`, whose figure
    (divided by that of the row `over`, where one is named) is to lie `between` two values, in the column's unit.
    """

    text: str
    column: str
    ascending: list[str] = field(default_factory=list)
    row: str | None = None
    over: str | None = None
    between: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class TableSpec:
    """A table as `conf/table/**.yaml` describes it.

    Attributes:
        name: as in `table=…`. title: its heading.
        base: overrides of every run, weaker than the command line's; those of a row are stronger.
        seeds: the seeds of every row. baseline: label of the row that differences are to.
        columns: keys of the columns shown. rows, claims: see there.
        tolerance: by column, how far a measured figure may be off the lab's and still agree with it.
        prepare: rows that are not shown, whose runs the others need; they are trained first.
        evaluation: which evaluation of its runs it shows; of those on test, ones on validation where a task has no
            labelled test split, see `collect`.
        delta: the largest difference, in points, of rows that are called not different.
        most_seeds: up to so many a row gets while its comparisons are open, see `sequential`; None: it has `seeds`.
    """

    name: str
    title: str
    base: list[str]
    seeds: list[int]
    baseline: str
    columns: list[str]
    rows: list[RowSpec]
    claims: list[ClaimSpec]
    tolerance: dict[str, float]
    prepare: list[RowSpec]
    evaluation: EvaluationSpec = EvaluationSpec()
    delta: float = DELTA
    most_seeds: int | None = None

    def evaluation_of(self, row: RowSpec) -> EvaluationSpec:
        """Return which evaluation of its runs a row shows."""
        return replace(self.evaluation, **row.evaluation)

    def for_metrics(self, metrics: Sequence[str]) -> "TableSpec":
        """Return the table for a task of these metrics, without columns and figures of scores that it does not have.

        Where it has none of them, its metrics take their place. A claim that rows ascend in a score that it does not
        have is judged on its first metric.
        """
        scores = [key for key in self.columns if key in SCORES]
        columns = [key for key in self.columns if key not in SCORES or key in metrics]
        if scores and not any(key in metrics for key in scores):
            place = self.columns.index(scores[0])
            columns[place:place] = metrics

        def known(figures: Mapping[str, Any]) -> dict[str, Any]:
            return {key: figure for key, figure in figures.items() if key not in SCORES or key in metrics}

        rows = [replace(row, lab=known(row.lab), published=known(row.published)) for row in self.rows]
        return replace(self, columns=columns, rows=rows, claims=[_claim_for(claim, metrics) for claim in self.claims])


MOST_SEEDS = 1_000  # of a row
# what a table's file may hold, and `table.…=` set
KEYS = TableSpec.__dataclass_fields__.keys() - {"name", "most_seeds"} | {"split"}


def read_spec(name: str, raw: Mapping[str, Any], seeds: Any, evaluation: Mapping[str, Any] | None = None) -> TableSpec:
    """Return the checked spec.

    Args:
        name: as the user chose it.
        raw: the group `table` of the composed config, plain.
        seeds: a number of seeds, or a list of them.
        evaluation: what the command line says of the evaluation; None stands for what the table says.

    Raises UserError for an unknown key, column or row, a label that occurs twice, or bad seeds.
    """
    where = f"table={name}"
    check_keys(raw, KEYS, where)
    for key in ("title", "baseline", "columns", "rows"):
        if raw.get(key) in (None, "", []):
            raise UserError(f"{where}: {key} is missing")
    for key in ("rows", "prepare", "claims", "columns", "base"):
        check_list(raw.get(key), f"{where}: {key}")
    base = _overrides(raw.get("base"), f"{where}: base")
    asked = {key: value for key, value in _evaluation(evaluation, "the line").items() if value is not None}
    rows = [_row(row, f"{where}: a row") for row in raw["rows"]]
    prepare = [_row(row, f"{where}: prepare") for row in raw.get("prepare") or []]
    labels = [row.label for row in (*rows, *prepare)]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise UserError(f"{where}: two rows are labelled {twice.pop()!r}")
    labels = labels[: len(rows)]
    claims = [_claim(claim, f"{where}: a claim") for claim in raw.get("claims") or []]
    for key in raw["columns"]:
        check_column(key, where)
    for claim in claims:
        _check_claim(claim, labels, where)
    if str(raw["baseline"]) not in labels:
        raise UserError(f"{where}: the baseline is no row. {nearest(str(raw['baseline']), labels)}")
    return TableSpec(
        name=name,
        title=str(raw["title"]),
        base=base,
        seeds=_seeds(seeds),
        baseline=str(raw["baseline"]),
        columns=list(raw["columns"]),
        rows=rows,
        claims=claims,
        tolerance=figures(raw.get("tolerance"), where, "tolerance"),
        prepare=prepare,
        evaluation=replace(
            EvaluationSpec(_split(raw.get("split"), where)), **_evaluation(raw.get("evaluation"), where), **asked
        ),
        delta=_delta(raw.get("delta", DELTA), where),
    )


def _claim_for(claim: ClaimSpec, metrics: Sequence[str]) -> ClaimSpec:
    other = claim.ascending and claim.column in SCORES and claim.column not in metrics
    return replace(claim, column=metrics[0]) if other else claim


def _split(given: Any, where: str) -> str:
    if given not in (None, *SPLITS):
        raise UserError(f"{where}: table.split={given} must be {' or '.join(SPLITS)}")
    return str(given or SPLITS[0])


def _delta(given: Any, where: str) -> float:
    if is_number(given) and given >= LEAST_DELTA:
        return float(given)
    raise UserError(f"{where}: table.delta={given} must be a number of points from {LEAST_DELTA}, such as 1")


def _row(raw: Any, where: str) -> RowSpec:
    row: RowSpec = _fill(RowSpec, raw, where)
    check_list(row.overrides, f"{where}: overrides")
    return RowSpec(
        label_of(row.label, where),
        _overrides(row.overrides, where),
        figures(row.lab, where, "the lab's figures"),
        by_column(row.published, where, "published"),
        _evaluation(row.evaluation, where),
    )


def _evaluation(raw: Any, where: str) -> dict[str, Any]:
    """Return the checked settings of an evaluation; None is nothing said."""
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise UserError(f"{where}: evaluation must have keys and values, not {raw!r}")
    if "split" in raw:
        raise UserError(f"{where}: evaluation.split is called table.split now: `split: {raw['split']}` beside the rows")
    check_keys(raw, EvaluationSpec.__dataclass_fields__.keys() - {"split"}, f"{where}: evaluation")
    if raw.get("merged") not in (None, True, False):
        raise UserError(f"{where}: evaluation.merged={raw['merged']} must be true or false")
    dropped = raw.get("dropped_layers") or 0
    if type(dropped) is not int or dropped < 0:
        raise UserError(f"{where}: evaluation.dropped_layers={dropped} must be a number of layers, 0 or more")
    if dropped and raw.get("merged"):
        raise UserError(f"{where}: evaluation: what is merged acts in every layer: leave out merged or dropped_layers")
    kept = raw.get("kept_adapters")
    if kept is not None and (type(kept) is not int or kept < 1):
        raise UserError(f"{where}: evaluation.kept_adapters={kept} must be a number of adapters, 1 or more")
    if kept and (dropped or raw.get("merged")):
        raise UserError(f"{where}: evaluation: kept_adapters stands alone: leave out merged and dropped_layers")
    return dict(raw)


def _overrides(lines: list[Any] | None, where: str) -> list[str]:
    """Return a row's overrides; Hydra's own settings can run code, and a table may be somebody else's."""
    overrides = [str(line) for line in lines or []]
    for line in overrides:
        if not line.lstrip("+~ ").partition("=")[0]:
            raise UserError(f"{where}: cannot read {line!r}: write key=value")
        if re.match(r"[+~]*hydra\b", line):
            raise UserError(f"{where}: {line}: Hydra's own settings belong on the command line, not into a table")
    return overrides


def _claim(raw: Any, where: str) -> ClaimSpec:
    claim: ClaimSpec = _fill(ClaimSpec, raw, where)
    check_list(claim.ascending, f"{where}: ascending")
    row, over = (None if label is None else str(label) for label in (claim.row, claim.over))
    check_list(claim.between, f"{where}: between")
    between = claim.between or []
    if not all(is_number(end) or end in (-inf, inf) for end in between):
        raise UserError(f"{where}: between must be two numbers, not {between!r}")
    ascending = [str(label) for label in claim.ascending or []]
    return replace(claim, ascending=ascending, row=row, over=over, between=between)


def _fill(cls: type, raw: Any, where: str) -> Any:
    if not isinstance(raw, Mapping):
        raise UserError(f"{where} must have keys and values, not {raw!r}")
    check_keys(raw, cls.__dataclass_fields__, where)  # type: ignore[attr-defined]
    try:
        return cls(**raw)
    except TypeError as error:
        raise UserError(f"{where} {dict(raw)} lacks {str(error).rpartition(': ')[2]}") from error


def _check_claim(claim: ClaimSpec, labels: list[str], where: str) -> None:
    check_column(claim.column, where)
    for label in [*claim.ascending, *(label for label in (claim.row, claim.over) if label is not None)]:
        if label not in labels:
            raise UserError(f"{where}: claim {claim.text!r} is about no row. {nearest(label, labels)}")
    if claim.over is not None and claim.column in SIGNED:
        raise UserError(f"{where}: claim {claim.text!r} divides figures of {claim.column}, which can be 0 or less")
    ranged = claim.row is not None and len(claim.between) == 2
    if ranged == (len(claim.ascending) > 1):
        raise UserError(f"{where}: claim {claim.text!r} needs either ascending rows, or row and between")


def _seeds(given: Any) -> list[int]:
    if type(given) is int and 1 <= given <= MOST_SEEDS:
        return list(range(given))
    if isinstance(given, list) and given and all(type(seed) is int and 0 <= seed <= MAX_SEED for seed in given):
        return sorted(set(given))
    raise UserError(
        f"seeds={given} must be a number of seeds, 1 to {MOST_SEEDS:,}, or a list of seeds (0 … {MAX_SEED}),"
        " e.g. seeds=[0,1,2]"
    )
