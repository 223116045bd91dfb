"""How many of the lowest layers a run is scored without its method (AdapterDrop), as `--drop` says it."""

import re
from collections.abc import Sequence

from peftbench.errors import UserError
from peftbench.methods import METHODS, Method

EACH = "each"
_PART = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def droppable_methods() -> list[str]:
    """Return the names of the methods that can leave layers out."""
    return sorted(name for name, cls in METHODS.items() if cls.droppable_layers is not Method.droppable_layers)


def check_drop(text: str, method: str, merged: bool) -> None:
    """Raise UserError for what is no way to say how many layers, and for a method of that name that cannot be so."""
    if merged:
        raise UserError("--drop with --merged: what is merged acts in every layer; leave one of them out")
    if text != EACH:
        _ranges(text)
    if method not in (droppable := droppable_methods()):
        raise UserError(f"--drop: {method} has no layers to leave out, only {', '.join(droppable)} have")


def dropped_counts(text: str, layers: Sequence[int]) -> list[int]:
    """Return the numbers n of lowest layers to leave out, in the order given, each once.

    Args:
        text: one n, a range such as 0-5, several of these with commas between, or `each`: every n that leaves at least
            one layer and another model than the n before.
        layers: those that the method acts in, from the lowest on.

    Raises UserError where there are none, or where an n leaves none of them.
    """
    if not layers:
        raise UserError(f"--drop {text}: this run's method is in no layer that could be left out")
    if text == EACH:
        return [0, *(layer + 1 for layer in layers[:-1])]
    most, ranges = layers[-1], _ranges(text)
    if (asked := max(last for _, last in ranges)) > most:
        raise UserError(
            f"--drop {asked} leaves no layer: this run's method acts up to layer {most}, counted from 0, so choose 0 to"
            f" {most}"
        )
    return list(dict.fromkeys(n for first, last in ranges for n in range(first, last + 1)))


def _ranges(text: str) -> list[tuple[int, int]]:
    parts = [_PART.fullmatch(part) for part in text.split(",")]
    ranges = [(int(part[1]), int(part[2] or part[1])) for part in parts if part]
    if len(ranges) < len(parts) or any(first > last for first, last in ranges):
        raise UserError(f"--drop {text}: say how many of the lowest layers, e.g. 3, a range 0-5, a list 0,3,5, or each")
    return ranges
