"""What `evaluate --fusion-weights` adds: the mean weight of each adapter at each place, printed and as a plot."""

from collections.abc import Mapping, Sequence
from typing import Any

from peftbench.errors import PeftbenchError, TakenOverError, UserError
from peftbench.files import make_folder
from peftbench.runs.identity import file_name
from peftbench.runs.record import Record
from peftbench.tables.export.heat_map import HeatMap, save_heat_map, to_terminal
from peftbench.terminal import print_error, print_table


def check_is_fusion(record: Record) -> None:
    """Raise UserError for a run of another method, which has no such weights."""
    if (method := record.read().method) != "fusion":
        raise UserError(f"--fusion-weights: {record.folder.name} is a run of {method}, and a fusion alone has weights")


def draw_weights(record: Record, weights: Mapping[str, Any] | None, conditions: Sequence[str]) -> str | None:
    """Draw the weights, if any, into the run's folder; return the file's name in it, None where there is none.

    `conditions`: the split, and what was left out.
    """
    from peftbench.runs.lock import RunLock

    if weights is None:
        return None
    name = f"evaluations/{file_name('-'.join(['fusion-weights', *conditions]))}.svg"
    try:
        with RunLock(record.folder):
            make_folder(record.folder / "evaluations")
            save_heat_map(_heat_map(weights, conditions), record.folder / name)
    except TakenOverError:
        raise
    except PeftbenchError as error:  # a record on a disk that is only read, for one
        print_error(f"no plot: {error}")
        return None
    return name


def print_weights(weights: Mapping[str, Any], conditions: Sequence[str]) -> None:
    """Print the weights, a row for each place."""
    print_table(to_terminal(_heat_map(weights, conditions)))


def _heat_map(weights: Mapping[str, Any], conditions: Sequence[str]) -> HeatMap:
    return HeatMap(f"mean weight, {', '.join(conditions)}", weights["places"], weights["adapters"], weights["weights"])
