"""What runs that are compared have in common: their data, machine and date; and what trains such a run again."""

from collections.abc import Sequence
from typing import Any

from peftbench.tables.collect import Found, PlannedRun
from peftbench.tables.table import Pair

# what says where files and records lie here, or how a run is carried out, and not what is learned
_HERE = ("seed", "output_dir", "experiment", "device", "threads", "force", "task.dir")


def conditions(used: Sequence[Found]) -> dict[str, Any]:
    """Return the fields of a `Comparison` that records hold: training_rows, made, machine, backbone."""
    results = [run.result for run in used if run.result]
    environments = [result.environment for result in results if result.environment]
    machines = {f"{found.device}, {found.threads} threads, {found.precision}" for found in environments}
    return {
        "training_rows": results[0].examples.get("train"),
        "made": max(result.finished or "" for result in results)[:10] or None,
        "machine": "; ".join(sorted(machines)) or None,
        "backbone": next((result.parameters.backbone for result in results if result.parameters), None),
    }


def train_overrides(planned: PlannedRun) -> list[str]:
    """Return what trains a run elsewhere too."""
    return [line for line in planned.overrides if line.lstrip("+").partition("=")[0] not in _HERE]


def together(pairs: Sequence[Pair]) -> str:
    """Say how sure the intervals of all pairs are."""
    return f"95 % for all {len(pairs)} pairs together" if len(pairs) > 1 else "95 %"
