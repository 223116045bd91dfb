"""The runs that tell what a row's spread comes from: one source of chance has other seeds, the others keep theirs."""

from collections.abc import Sequence
from dataclasses import replace

from peftbench.sweeps.request import read_request
from peftbench.tables.collect import PlannedRun
from peftbench.tables.spec import RowSpec, TableSpec
from peftbench.tables.spread import SOURCES


def varied_runs(argv: Sequence[str]) -> dict[tuple[str, str], list[PlannedRun]]:
    """Return by row and source the runs that vary it, as many as the table of the line has seeds.

    The first run of each source is the same one, in which every source has the seed 0. Raises UserError for any mistake
    in the line or the table.
    """
    names: dict[str, tuple[str, str]] = {}

    def adapt(spec: TableSpec) -> TableSpec:
        rows = []
        for row in spec.rows:
            for source in SOURCES:
                for number in range(len(spec.seeds)):
                    rows.append(_varied(row, source, number))
                    names[rows[-1].label] = row.label, source
        return replace(spec, rows=rows, seeds=[0], baseline=rows[0].label, claims=[])

    found: dict[tuple[str, str], list[PlannedRun]] = {}
    for run in read_request(argv, adapt).planned:
        if run.label in names:
            found.setdefault(names[run.label], []).append(run)
    return found


def _varied(row: RowSpec, source: str, number: int) -> RowSpec:
    seeds = [f"seed_of.{name}={number if name == source else 0}" for name in SOURCES]
    return replace(row, label=f"{row.label}, {source} {number}", overrides=[*row.overrides, *seeds])
