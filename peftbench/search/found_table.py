"""A line's table as it stands: what it asks for, the runs there are, and how its rows were tuned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from peftbench.search.tuning import read_tuned
from peftbench.sweeps.request import TableRequest
from peftbench.sweeps.tasks import check_tasks, read_each
from peftbench.sweeps.until import wanted_runs
from peftbench.tables.build import build_table
from peftbench.tables.collect import RunState, collect
from peftbench.tables.over_tasks import build_over_tasks
from peftbench.tables.table import Table, Tuned
from peftbench.tables.tuning import with_tuning


@dataclass(frozen=True)
class FoundTable:
    """What a line of one task asks for, the runs found of it, and how its rows were tuned."""

    request: TableRequest
    found: list[RunState]
    tuned: list[Tuned]

    def build(self) -> Table:
        """Make the table."""
        return with_tuning(build_table(self.request.spec, self.found, self.request.command), self.tuned)


def read_tables(lines: Sequence[Sequence[str]]) -> list[FoundTable]:
    """Read the lines of one table, one a task, and find their runs; raises UserError as `read_tuned` does."""
    read = read_each(lines, read_tuned)
    check_tasks([request for request, _ in read])
    return [find_runs_of(request, tuned) for request, tuned in read]


def find_runs_of(
    request: TableRequest, tuned: Sequence[Tuned], mistakes: Mapping[Path, str] | None = None
) -> FoundTable:
    """Find the runs of a request; `mistakes` says, by its folder, why one could not be begun."""
    found = collect(request.planned, request.stale == "use", mistakes)
    return FoundTable(request, wanted_runs(request, found), list(tuned))


def build_tables(tables: Sequence[FoundTable], command: str) -> Table:
    """Make the one table of a line: of several tasks that with a column a task; `command` is the line to type."""
    if len(tables) == 1:
        return tables[0].build()
    built = build_over_tasks([(table.request.spec, table.found) for table in tables], command)
    if any(table.tuned for table in tables):
        note = "rows were tuned on each task by itself: its own table has the settings and trials"
        return replace(built, reading=[*built.reading, note])
    return built
