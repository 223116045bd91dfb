"""Every way a table can be written to a file."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from peftbench.errors import UserError, nearest
from peftbench.files import atomic_write, make_folder, plain
from peftbench.tables.table import Table


def to_json(table: Table) -> str:
    """Return all of the table as indented JSON."""
    text = json.dumps(plain(table.plain()), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # a byte of the command line that is no UTF-8 becomes JSON's own escape
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _markdown(table: Table) -> str:
    from peftbench.tables.export.markdown import to_markdown

    return to_markdown(table)


def _csv(table: Table) -> str:
    from peftbench.tables.export.csv_file import to_csv

    return to_csv(table)


def _latex(table: Table) -> str:
    from peftbench.tables.export.latex import to_latex

    return to_latex(table)


def _html(table: Table) -> str:
    from peftbench.tables.export.html import to_html

    return to_html(table)


# format → (the file's ending, its text)
TEXTS: dict[str, tuple[str, Callable[[Table], str]]] = {
    "markdown": ("md", _markdown),
    "csv": ("csv", _csv),
    "json": ("json", to_json),
    "latex": ("tex", _latex),
    "html": ("html", _html),
}
PLOTS = ("png", "svg")
FORMATS = (*TEXTS, *PLOTS)


def check_formats(names: Sequence[str]) -> None:
    """Raise UserError for a format that there is not."""
    for name in names:
        if name not in FORMATS:
            raise UserError(f"there is no format {name!r}. {nearest(name, FORMATS)}")


def write_table(table: Table, folder: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write the table into `folder`, in every format named, and return the files.

    Raises UserError where the folder cannot be written.
    """
    make_folder(folder)
    written = []
    for name in formats:
        if name in TEXTS:
            ending, render = TEXTS[name]
            path = folder / f"table.{ending}"
            with atomic_write(path) as file:
                file.write(render(table))
            written.append(path)
    if kinds := [name for name in formats if name in PLOTS]:
        from peftbench.tables.export.plots import save_plots

        written += save_plots(table, folder, kinds)
    return written
