"""What of a method is left out where a run is scored: the lowest layers (AdapterDrop), all but the weightiest adapters.

`--drop` and `--keep-adapters` say how many; both by Rücklé et al. 2021.
"""

import re
from collections.abc import Sequence

from peftbench.errors import UserError
from peftbench.methods import METHODS, Method, method_class
from peftbench.methods.parts import PartsMethod

EACH = "each"
_PART = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def droppable_methods() -> list[str]:
    """Return the names of the methods that can leave layers out."""
    return sorted(name for name, cls in METHODS.items() if cls.droppable_layers is not Method.droppable_layers)


def check_drop(text: str, method: str, merged: bool) -> None:
    """Raise UserError for a value of --drop that is malformed, and for a method that cannot leave layers out.

    Args:
        text: the value. method: its name. merged: whether it is to be merged, which leaves no layer out.
    """
    if merged:
        raise UserError("--drop with --merged: what is merged acts in every layer; leave one of them out")
    if text != EACH:
        _layer_ranges(text)
    if method not in (droppable := droppable_methods()):
        raise UserError(f"--drop: {method} has no layers to leave out, only {', '.join(droppable)} have")


def check_keep(text: str, method: str, drop: str | None) -> None:
    """Raise UserError for a value of --keep-adapters that is malformed, and for a method without adapters.

    Args:
        text: the value. method: its name. drop: the value of --drop, with which it cannot go together.
    """
    if drop is not None:
        raise UserError("--keep-adapters with --drop: each of them is scored by itself; leave one of them out")
    if text != EACH:
        _adapter_ranges(text)
    if not issubclass(method_class(method), PartsMethod):
        raise UserError(f"--keep-adapters: {method} is made of no adapters of other runs, a fusion is")


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
    most, ranges = layers[-1], _layer_ranges(text)
    if (asked := max(last for _, last in ranges)) > most:
        raise UserError(
            f"--drop {asked} leaves no layer: this run's method acts up to layer {most}, counted from 0, so choose 0 to"
            f" {most}"
        )
    return _counts(ranges)


def kept_counts(text: str, adapters: int) -> list[int]:
    """Return the numbers of adapters to keep at each place, in the order given, each once.

    Args:
        text: as for `dropped_counts`; `each` is every number from 1 to all.
        adapters: how many the fusion has.

    Raises UserError for more than the fusion has, or none.
    """
    if text == EACH:
        return list(range(1, adapters + 1))
    ranges = _adapter_ranges(text)
    for asked in (number for ends in ranges for number in ends):
        if not 1 <= asked <= adapters:
            raise UserError(f"--keep-adapters {asked}: this fusion has {adapters} adapters, so choose 1 to {adapters}")
    return _counts(ranges)


def _counts(ranges: list[tuple[int, int]]) -> list[int]:
    return list(dict.fromkeys(n for first, last in ranges for n in range(first, last + 1)))


def _layer_ranges(text: str) -> list[tuple[int, int]]:
    return _ranges(
        text, f"--drop {text}: say how many of the lowest layers, e.g. 3, a range 0-5, a list 0,3,5, or each"
    )


def _adapter_ranges(text: str) -> list[tuple[int, int]]:
    return _ranges(
        text, f"--keep-adapters {text}: say how many at each place, e.g. 2, a range 1-3, a list 1,2,4, or each"
    )


def _ranges(text: str, mistake: str) -> list[tuple[int, int]]:
    parts = [_PART.fullmatch(part) for part in text.split(",")]
    ranges = [(int(part[1]), int(part[2] or part[1])) for part in parts if part]
    if len(ranges) < len(parts) or any(first > last for first, last in ranges):
        raise UserError(mistake)
    return ranges
