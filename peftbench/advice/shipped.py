"""The measured and published tables that come with the package, as files, and how one gets there."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peftbench.advice.comparison import SHIPPED, Candidate, Comparison, task_type
from peftbench.advice.conditions import conditions, together, train_overrides
from peftbench.errors import UserError
from peftbench.files import atomic_write, make_folder, parse_json, plain
from peftbench.runs.result import read_as
from peftbench.tables.collect import RunState
from peftbench.tables.table import Table

FOLDER = Path(__file__).parent / "tables"


def read_shipped(folder: Path = FOLDER) -> list[Comparison]:
    """Return all tables there are in a folder; raises UserError for a damaged one."""
    return [read_comparison(path) for path in sorted(folder.rglob("*.json"))]


def read_comparison(path: Path) -> Comparison:
    """Return a table that `write_comparison` wrote; raises UserError where it is damaged."""
    try:
        comparison: Comparison = read_as(Comparison, parse_json(path.read_bytes()), path.name)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}. Install peftbench again.") from error
    return comparison


def to_comparison(table: Table, found: Sequence[RunState], kind: str = SHIPPED) -> Comparison:
    """Return what a table compares; raises UserError where no run of it has finished.

    Args:
        table: as it was built.
        found: its runs, as `collect` gives them.
        kind: see `Comparison`.
    """
    used = [run for run in found if run.used and run.result]
    if not used:
        raise UserError(f"table {table.name} has no finished runs: {table.command} trains them")
    overrides = {run.planned.label: train_overrides(run.planned, elsewhere=True) for run in used}
    methods = {run.planned.label: dict(run.planned.config["method"]) for run in used}
    return Comparison(
        kind=kind,
        title=table.title,
        source=table.command,
        model=table.model,
        task=table.task,
        task_type=task_type(used[0].planned.config["task"]),
        evaluation=table.evaluation,
        primary=table.primary,
        candidates=[
            Candidate(row.label, overrides[row.label], methods[row.label], row.cells)
            for row in table.rows
            if row.label in methods
        ],
        pairs=table.pairs,
        paired=together(table.pairs),
        delta=table.delta,
        examples=table.examples,
        seeds=len(table.seeds),
        notes=table.notes,
        **conditions(used),
    )


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write a comparison so that `read_comparison` reads it, what is not known left out."""
    make_folder(path.parent)
    text = json.dumps(_known(plain(asdict(comparison))), indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write(text + "\n")


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(entry) for key, entry in value.items() if entry is not None}
    return [_known(entry) for entry in value] if isinstance(value, list) else value
