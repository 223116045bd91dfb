"""Whether a method of the sizes asked for can be built at all, told from its closed form before anything is."""

import os
from typing import TYPE_CHECKING, Any

from peftbench.backbones.sites import Sites
from peftbench.errors import UserError

if TYPE_CHECKING:
    from peftbench.methods.base import Method

_BYTES = 4  # of a number in fp32
# what torch can count, where no memory is taken
_MOST_COUNTED = 2**63 - 1
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def check_size(method_cls: type["Method"], config: Any, sites: Sites) -> None:
    """Raise UserError where what a method would train takes more memory than this machine has.

    What fits there and not with its gradients, or not on the device, is a run that ends out of memory.
    """
    count = int(method_cls.count(config, sites))
    meta = sites.device.type == "meta"
    most = _MOST_COUNTED if meta else _memory()
    if count * _BYTES > most:
        there = "more than can be counted" if meta else f"more than the {_shown(most)} of memory here"
        raise UserError(
            f"method={method_cls.name} of these sizes would train {count:.2g} parameters, {_shown(count * _BYTES)},"
            f" {there}: choose smaller ones"
        )


def _memory() -> int:
    """Return the machine's memory in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # a system that does not tell
        return _MOST_COUNTED


def _shown(size: float) -> str:
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} {_UNITS[-1]}"
