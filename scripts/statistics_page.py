"""The sections of docs/statistics.md that scripts write."""

from collections.abc import Sequence
from pathlib import Path

from peftbench.files import atomic_write

PAGE = Path(__file__).parents[1] / "docs" / "statistics.md"


def write_section(begin: str, end: str, lines: Sequence[str]) -> None:
    """Put lines between two marks of the page, in the place of what stands there."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, _, behind = rest.partition(end)
    with atomic_write(PAGE) as file:
        file.write("\n".join([before + begin, "", *lines, "", end + behind]))
