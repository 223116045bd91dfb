"""What runs that are compared have in common: their data, machine and date; and what trains such a run again."""

from collections.abc import Sequence
from typing import Any

from peftbench.tables.collect import PlannedRun, RunState, is_learned
from peftbench.tables.table import Pair


def conditions(used: Sequence[RunState]) -> dict[str, Any]:
    """Return the fields of a `Comparison` that records hold: training_rows, made, machine, backbone."""
    results = [run.result for run in used if run.result]
    environments = [result.environment for result in results if result.environment]
    machines = {
        f"{found.device}, {found.threads} thread{'s' if found.threads != 1 else ''}, {found.precision}"
        for found in environments
    }
    return {
        "training_rows": results[0].examples.get("train"),
        "made": max(result.finished or "" for result in results)[:10] or None,
        "machine": "; ".join(sorted(machines)) or None,
        "backbone": next((result.parameters.backbone for result in results if result.parameters), None),
    }


def train_overrides(planned: PlannedRun, elsewhere: bool = False) -> list[str]:
    """Return what trains such a run with another seed; `elsewhere` leaves out which folder holds the data here."""
    kept = () if elsewhere else ("task.dir",)
    given = [line.partition("=") for line in planned.overrides]
    return ["".join(line) for line in given if line[0] != "seed" and (is_learned(line[0]) or line[0] in kept)]


def together(pairs: Sequence[Pair]) -> str:
    """Say how sure the intervals of all pairs are."""
    return f"95 % for all {len(pairs)} pairs together" if len(pairs) > 1 else "95 %"
