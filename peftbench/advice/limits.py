"""What an answer must keep to, and which candidates do by the figures there are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from peftbench.advice.comparison import Candidate, Comparison
from peftbench.tables.columns import COLUMNS
from peftbench.tables.table import Cell, Column, format_interval

_BYTES_A_PARAMETER = 4  # records and tables are of weights in fp32
_MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What may be spent; None is no limit.

    Attributes:
        memory: MiB, of training and of the weights of all tasks. latency: at batch 1, times the bare backbone's.
        share: percent of the backbone's parameters that all tasks together train.
        tasks: how many tasks share one backbone.
    """

    memory: float | None = None
    latency: float | None = None
    share: float | None = None
    tasks: int = 1

    @property
    def by_figure(self) -> dict[str, float]:
        """The limits by the figures that `figures` returns."""
        given = {"share": self.share, "latency": self.latency, "memory": self.memory, "weights": self.memory}
        return {key: limit for key, limit in given.items() if limit is not None}


def columns(tasks: int) -> dict[str, Column]:
    """Return the columns of the figures that `figures` returns."""
    of_tasks = f" of {tasks} tasks" if tasks > 1 else ""
    return {
        "share": Column("share", f"share{of_tasks}", "%", 3),
        "latency": Column("latency", "latency", "× bare", 3),
        "memory": Column("memory", "training memory", "MiB", 0),
        "weights": Column("weights", f"weights{of_tasks}", "MiB", 0),
        **({"switch": COLUMNS["switch"]} if tasks > 1 else {}),
    }


def figures(candidate: Candidate, comparison: Comparison, tasks: int) -> dict[str, Cell]:
    """Return what a candidate costs, by key of `columns`; what is not known is left out.

    One task is served by merged weights where the method can be merged; several cannot share merged ones. Weights are
    the backbone and what each task adds to it, in fp32; where all of it is trained nothing is shared.
    """
    cells = candidate.cells
    found: dict[str, Cell] = {key: cells[key] for key in ("memory", "switch") if key in cells}
    if "memory" in found:  # whose ends are the least and the most of the runs, and no interval
        found["memory"] = replace(found["memory"], low=None, high=None)
    merged = cells.get("latency_merged")
    latency = merged if tasks == 1 and merged is not None and merged.value is not None else cells.get("latency")
    if latency is not None:
        found["latency"] = latency
    share = cells.get("share")
    if share is not None and share.value is not None:
        found["share"] = Cell(tasks * share.value, None, share.n)
        if comparison.backbone is not None:
            shared = 0 if share.value >= 100 else 1
            weights = comparison.backbone * _BYTES_A_PARAMETER * (shared + tasks * share.value / 100)
            found["weights"] = Cell(weights / _MIB, None, share.n)
    return {key: cell for key, cell in found.items() if cell.value is not None and key in columns(tasks)}


def exceeded(of_candidate: Mapping[str, Cell], limits: Limits) -> dict[str, str]:
    """Return the figures that are over their limit, each as text: `latency 1.089 × bare, over 1.05`."""
    over = {}
    for key, limit in limits.by_figure.items():
        cell = of_candidate.get(key)
        if cell is not None and cell.value is not None and cell.value > limit:
            column = columns(limits.tasks)[key]
            shown = format_interval((cell.value, cell.low, cell.high), column)
            over[key] = f"{column.title} {shown} {column.unit}, over {f'{limit:g}' if limit >= 1 else f'{limit:.2g}'}"
    return over


def unsure(of_candidate: Mapping[str, Cell], limits: Limits) -> list[str]:
    """Return the figures within their limit whose interval reaches over it."""
    return [
        columns(limits.tasks)[key].title
        for key, limit in limits.by_figure.items()
        if (cell := of_candidate.get(key)) is not None
        and cell.value is not None
        and cell.high is not None
        and cell.value <= limit < cell.high
    ]
