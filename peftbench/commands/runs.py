"""`peftbench runs`: the runs there are, or one of them in detail."""

import argparse
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from peftbench.arguments import Parser
from peftbench.errors import UserError, nearest
from peftbench.files import is_number, is_there, plain
from peftbench.runs.find import UNREADABLE, Run, find_runs, inspect_run, load_run, parse_time
from peftbench.runs.listing import differing_settings, flat_run, matches, sort_rows
from peftbench.runs.result import Status
from peftbench.terminal import format_duration, print_as_json, print_table

_COLOURS = {
    Status.RUNNING: "cyan",
    Status.FINISHED: "green",
    Status.IMPORTED: "green",
    Status.INTERRUPTED: "yellow",
    Status.FAILED: "red",
    Status.OOM: "red",
    UNREADABLE: "red",
}
# What a run's details show, in this order.
_FACTS = ("experiment", "method", "task", "model", "seed", "device", "threads", "precision", "git_commit")
_SECTIONS = ("imported", "best", "parameters", "latency", "time", "memory", "versions")


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench runs",
        description="List your runs, or show one of them in detail.",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RUN | KEY=VALUE",
        help="one run: its folder, its id, the start of the id, or its hash; or settings to filter by:"
        " method=lora trainer.lr=1e-3",
    )
    parser.add_argument("--sort", metavar="KEY", help="sort by score (best first), seed, time.train, any setting …")
    parser.add_argument("--status", choices=[*map(str, Status), UNREADABLE], help="only runs with this status")
    parser.add_argument("--experiment", help="only runs of this experiment")
    parser.add_argument("--method", help="only runs of this method")
    parser.add_argument("--task", help="only runs on this task")
    parser.add_argument("--model", help="only runs with this model")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), help="folder with the run records (default: outputs)"
    )
    parser.add_argument("--json", action="store_true", help="print the records and their folders as JSON")
    return parser


def main(argv: list[str]) -> int:
    """Print the runs that match, or the one named; returns the exit code.

    Raises UserError where the run named is not there, is ambiguous or cannot be read.
    """
    arguments = build_parser().parse_intermixed_args(argv)
    settings = dict(word.split("=", 1) for word in arguments.words if "=" in word and not is_there(Path(word)))
    names = [word for word in arguments.words if word.split("=", 1)[0] not in settings]
    if len(names) > 1 or (names and settings):
        raise UserError(f"say one run, or settings as KEY=VALUE: not {' '.join(arguments.words)}")
    if names:
        record = load_run(names[0], arguments.output_dir)
        record.read()  # a damaged record is this command's error, not a line of its table
        run = inspect_run(record)
        if arguments.json:
            print_as_json(_as_json(run), indent=2)
        else:
            print_table(_details(run))
        return 0

    filters = {key: getattr(arguments, key) for key in ("status", "experiment", "method", "task", "model")}
    runs = _chosen(find_runs(arguments.output_dir, **filters), settings, arguments.sort)
    if arguments.json:
        print_as_json([_as_json(run) for run in runs], indent=2)
    elif runs:
        print_table(_overview(runs), *_errors(runs))
    else:
        asked = ", ".join(f"{key} {value}" for key, value in {**filters, **settings}.items() if value is not None)
        print(f"No runs{f' with {asked}' if asked else ''} under {arguments.output_dir}.")
    return 0


def _chosen(runs: list[Run], settings: dict[str, str], sort: str | None) -> list[Run]:
    """Return the runs that have these settings, in the order asked for; UserError for a key that none of them has."""
    if not settings and sort is None:
        return runs
    rows = [flat_run(run) for run in runs]
    known = {key for row in rows for key in row}
    for key in (*settings, *([sort] if sort else [])):
        if rows and key not in known:
            raise UserError(f"no run has {key!r}. {nearest(key, known)}")
    kept = [number for number, row in enumerate(rows) if matches(row, settings)]
    if sort is not None:
        kept = [kept[place] for place in sort_rows([rows[number] for number in kept], sort)]
    return [runs[number] for number in kept]


def _as_json(run: Run) -> dict[str, Any]:
    return plain({"id": run.id, **run.facts, "status": run.status, "folder": run.record.folder})


def _overview(runs: list[Run]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    experiments = len({run.facts.get("experiment") for run in runs}) > 1
    if experiments:
        table.add_column("experiment", overflow="fold")
    # an id is copied as a whole: where there is no room, the others are folded
    table.add_column("run", no_wrap=True, min_width=max(len(run.id) for run in runs))
    table.add_column("status", overflow="fold")
    table.add_column("score", overflow="fold")
    for title in ("share", "age", "time"):
        table.add_column(title, justify="right", overflow="fold")
    rows = [flat_run(run) for run in runs]
    if differing := differing_settings(rows):
        table.add_column("settings", overflow="fold", min_width=20)
    for run, row in zip(runs, rows, strict=True):
        time = _section(run, "time").get("total")
        cells = [Text(str(run.facts.get("experiment", "")))] if experiments else []
        cells += [
            Text(run.id),
            Text(run.status, _COLOURS[run.status]),
            Text(_score(run)),
            Text(_percent(_section(run, "parameters").get("share_method"))),
            Text(_age(run)),
            Text(format_duration(time) if isinstance(time, int | float) else ""),
        ]
        if differing:
            cells.append(Text(" ".join(f"{key}={_text(row[key])}" for key in differing if row.get(key) is not None)))
        table.add_row(*cells)
    return table


def _errors(runs: list[Run]) -> Iterator[Text]:
    """One line for each run that says why it ended; a column of the table has no room for it."""
    for run in runs:
        lines = str(run.facts.get("error") or "").strip().splitlines()
        if lines:
            yield Text.assemble((f"{run.id}: ", _COLOURS[run.status]), lines[0])


def _details(run: Run) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("run", Text(run.id))
    table.add_row("status", Text(run.status, _COLOURS[run.status]))
    for title, value in _detail_rows(run):
        table.add_row(Text(title), Text(value))
    return table


def _detail_rows(run: Run) -> Iterator[tuple[str, str]]:
    result = run.facts
    if result.get("error"):
        yield "error", str(result["error"])
    if run.status == Status.INTERRUPTED:
        yield "", "The same `peftbench train` command continues it."
    for field in _FACTS:
        if result.get(field) is not None:
            yield field, str(result[field])
    yield "overrides", " ".join(map(str, result.get("overrides") or ["none"]))
    started, finished = result.get("started"), result.get("finished")
    yield "started", f"{started} on {result.get('host')}, process {result.get('pid')}"
    if finished:
        yield "finished", str(finished)
    for split, metrics in _section(run, "metrics").items():
        yield f"metrics {split}", "  ".join(f"{name} {value}" for name, value in _flat(metrics))
    for section in _SECTIONS:
        for number, (name, value) in enumerate(_flat(result.get(section))):
            yield "" if number else section, f"{name} {value}"
    yield "folder", str(run.record.folder)
    for path in sorted(run.record.folder.iterdir()):
        if not path.name.startswith("."):
            yield "", path.name + ("/" if path.is_dir() else "")


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Walk nested objects to (dotted name, text) pairs."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _flat(entry, f"{prefix}.{key}" if prefix else str(key))
    elif value is not None:
        yield prefix, _text(value, share=prefix.startswith("share_"))


def _text(value: Any, share: bool = False) -> str:
    if share:
        return _percent(value)
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _section(run: Run, field: str) -> Mapping[str, Any]:
    value = run.facts.get(field)
    return value if isinstance(value, Mapping) else {}


def _score(run: Run) -> str:
    """Return the primary metric on validation, the figure a run is judged by."""
    primary = run.facts.get("primary")
    metrics = _section(run, "metrics").get("validation")
    value = metrics.get(primary) if isinstance(metrics, Mapping) else None
    return f"{value:.4f} {primary}" if is_number(value) else ""


def _percent(share: Any) -> str:
    return f"{share:.2%}" if is_number(share) else ""


def _age(run: Run) -> str:
    """Return the time since the run ended, or since it began where it has not."""
    since = parse_time(run.facts.get("finished")) or run.started
    return format_duration((datetime.now(UTC) - since).total_seconds()) if since else ""
