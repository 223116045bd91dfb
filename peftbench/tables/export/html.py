"""A table as one self-contained page: readable without JavaScript; with it sortable, with plots that lead to runs."""

import json
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from peftbench.files import plain
from peftbench.tables.columns import COLUMNS
from peftbench.tables.export.grid import claims, missing_runs, published, subtitle, verdicts
from peftbench.tables.export.plot_data import CEILING, COLORS, COSTS, curves, intervals, scatter, tuning_curves
from peftbench.tables.export.strip import strip
from peftbench.tables.export.texts import printable_texts
from peftbench.tables.export.tuning import TITLE, tuning_grid
from peftbench.tables.table import Cell, Column, Row, Table, format_cell, format_interval, heading
from peftbench.tables.verdicts import in_words

_FOLDER = Path(__file__).parent
_FIGURE = ' class="figure"'


def to_html(table: Table) -> str:
    """Return the page; it needs no network and no other file."""
    table = printable_texts(table)
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(table.title)}</title>",
            f"<style>\n{style}</style></head><body>",
            f"<h1>{escape(table.title)}</h1><p>{escape(subtitle(table))}</p>",
            '<div class="scroll">',
            _table(table),
            "</div>",
            f"<p>{escape(table.conclusion)}</p>" if table.conclusion else "",
            _list(f"Against {table.baseline}", verdicts(table)),
            '<div id="plots"></div>',
            strip(table),
            _pairs(table),
            _tuning(table),
            _claims(table),
            _list("Published", published(table)),
            _list("Notes", [*table.reading, *table.notes]),
            _environment(table),
            f"<p>Made by <code>{escape(table.command)}</code></p>",
            '<dialog id="details" aria-labelledby="details-title"></dialog>',
            f'<script type="application/json" id="data">{_embedded(_data(table))}</script>',
            f"<script>\n{script}</script></body></html>\n",
        ]
    )


def _table(table: Table) -> str:
    headings = ['<th scope="col" aria-sort="none"><button type="button">row</button></th>']
    titles = [title for column in table.columns for title in (*_before(column, table), heading(column))]
    headings += [
        f'<th scope="col" aria-sort="none" class="figure"><button type="button">{escape(title)}</button></th>'
        for title in titles
    ]
    rows = [_row(number, row, table) for number, row in enumerate(table.rows)]
    return f"<table><thead><tr>{''.join(headings)}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _before(column: Column, table: Table) -> list[str]:
    """Return the heading that stands before a column: that of the groups before P(best), where there are any."""
    return ["group"] if column.key == "p_best" and any(row.group for row in table.rows) else []


def _row(number: int, row: Row, table: Table) -> str:
    reason = missing_runs(row)
    note = f'<small class="missing">{escape(reason)}</small>' if reason else ""
    baseline = '<small class="quiet">baseline</small>' if row.baseline else ""
    label = f'<button type="button" class="lead">{escape(row.label)}</button>{baseline}{note}'
    groups = sorted({other.group for other in table.rows})
    group = f'<td class="figure" data-value="{groups.index(row.group)}">{escape(row.group)}</td>'
    cells = "".join(
        group * len(_before(column, table)) + _cell(row.cells.get(column.key), column) for column in table.columns
    )
    return f'<tr data-row="{number}"><th scope="row" data-value="{escape(row.label)}">{label}</th>{cells}</tr>'


def _cell(cell: Cell | None, column: Column) -> str:
    if cell is None:
        return '<td class="figure">–</td>'
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    text = escape(format_cell(cell, column))
    parts = [f"<strong>{text}</strong>" if cell.differs else text]
    if cell.lab is not None:
        verdict = f": {cell.verdict}" if cell.verdict else ""
        parts.append(f'<small class="quiet">the lab {cell.lab:g}{escape(verdict)}</small>')
    between = ""
    if cell.low is not None and cell.high is not None and cell.low < cell.high:
        between = f' title="{escape(format_interval((cell.value or 0, cell.low, cell.high), column))}"'
    return f'<td class="figure"{value}{between}>{"".join(parts)}</td>'


def _pairs(table: Table) -> str:
    """Return every pair of rows with the verdict on it, folded."""
    if not table.pairs:
        return ""
    difference = COLUMNS["difference"]
    primary = next((column.title for column in table.all_columns if column.key == table.primary), table.primary)
    rows = "".join(
        f"<tr><td>{escape(pair.row)}</td><td>{escape(pair.other)}</td><td class='figure'>"
        f"{escape(format_interval((pair.value, pair.low, pair.high), difference))}</td>"
        f"<td>{escape(in_words(pair, table.delta))}</td></tr>"
        for pair in table.pairs
    )
    head = "<thead><tr><th>row</th><th>other</th><th>difference, points</th><th>verdict on the row</th></tr></thead>"
    return (
        f"<h2>All pairs</h2><details><summary>{len(table.pairs)} differences of {escape(primary)}</summary>"
        f'<div class="scroll"><table class="claims">{head}<tbody>{rows}</tbody></table></div></details>'
    )


def _claims(table: Table) -> str:
    if not table.claims:
        return ""
    rows = "".join(
        f"<tr><td>{escape(text)}</td><td>{escape(measured)}</td>"
        f'<td class="verdict" data-verdict="{escape(claim.verdict)}">{escape(verdict)}</td></tr>'
        for claim, (text, measured, verdict) in zip(table.claims, claims(table), strict=True)
    )
    head = "<thead><tr><th>claim</th><th>measured</th><th>verdict</th></tr></thead>"
    return f'<h2>Claims</h2><div class="scroll"><table class="claims">{head}<tbody>{rows}</tbody></table></div>'


def _tuning(table: Table) -> str:
    if not table.tuning:
        return ""
    headings, rows = tuning_grid(table)
    head = "".join(
        f'<th scope="col"{_FIGURE if 0 < n < len(headings) - 1 else ""}>{escape(text)}</th>'
        for n, text in enumerate(headings)
    )
    lines = []
    for label, *figures, settings in rows:
        cells = "".join(f"<td{_FIGURE}>{escape(figure)}</td>" for figure in figures)
        lines.append(f'<tr><th scope="row">{escape(label)}</th>{cells}<td><code>{escape(settings)}</code></td></tr>')
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<h2>{TITLE}</h2><div class="scroll"><table class="tuning">{body}</table></div>'


def _list(title: str, lines: list[str]) -> str:
    if not lines:
        return ""
    return f"<h2>{escape(title)}</h2><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _environment(table: Table) -> str:
    return _list("Made with", [f"{name}: {', '.join(values)}" for name, values in table.environment.items()])


def _data(table: Table) -> dict[str, Any]:
    """Return what the page's script draws and shows."""
    scatters = [asdict(found) for key in COSTS if (found := scatter(table, key)).points]
    return {
        "primary": heading(scatter(table, COSTS[0]).score),
        "colors": COLORS,
        "ceiling": CEILING,
        "scatters": [{**found, "title": heading(Column(**found["cost"]))} for found in scatters],
        "intervals": [asdict(point) for point in intervals(table)],
        "curves": [asdict(curve) for curve in curves(table)],
        "tuning": [asdict(curve) for curve in tuning_curves(table)],
        "rows": [{"label": row.label, "runs": [asdict(run) for run in row.runs]} for row in table.rows],
    }


def _embedded(data: Any) -> str:
    """Write JSON that cannot end its script element, whatever its texts hold."""
    text = json.dumps(plain(data), ensure_ascii=False, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
