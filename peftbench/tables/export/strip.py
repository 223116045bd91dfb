"""The validation pictures of a table's rows, what is true above what each row's first run predicted."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from peftbench.runs.pictures import FOLDER, SHOWN
from peftbench.tables.table import Table

_LARGEST = 1 << 20  # bytes of a picture that goes into the page


def strip(table: Table) -> str:
    """Return the pictures as HTML, embedded; nothing where no run of the table keeps any."""
    shown = [
        (row.label, folder)
        for row in table.rows
        if (run := next((run for run in row.runs if run.used), None)) is not None
        and (folder := Path(run.folder, FOLDER)).is_dir()
    ]
    if not shown:
        return ""
    lines = [_line("true", _read(shown[0][1], "truth"))]
    lines += [_line(label, _read(folder, "prediction")) for label, folder in shown]
    return f'<h2>Validation pictures</h2><div class="scroll"><table class="pictures">{"".join(lines)}</table></div>'


def _read(folder: Path, kind: str) -> list[bytes]:
    paths = [folder / f"{number}-{kind}.jpg" for number in range(SHOWN)]
    return [path.read_bytes() for path in paths if path.is_file() and path.stat().st_size <= _LARGEST]


def _line(label: str, pictures: Sequence[bytes]) -> str:
    cells = "".join(
        f'<td><img alt="{escape(label)}, picture {number}"'
        f' src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}"></td>'
        for number, picture in enumerate(pictures, start=1)
    )
    return f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>'
