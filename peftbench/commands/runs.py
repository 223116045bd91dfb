"""`peftbench runs`: the runs there are, or one of them in detail."""

import argparse
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from peftbench.arguments import Parser
from peftbench.files import plain
from peftbench.runs.find import UNREADABLE, Run, find_runs, inspect_run, load_run, parse_time
from peftbench.runs.result import Status
from peftbench.terminal import print_table

_COLOURS = {
    Status.RUNNING: "cyan",
    Status.FINISHED: "green",
    Status.INTERRUPTED: "yellow",
    Status.FAILED: "red",
    Status.OOM: "red",
    UNREADABLE: "red",
}
# What a run's details show, in this order.
_FACTS = ("experiment", "method", "task", "model", "seed", "device", "threads", "dtype", "git_commit")
_SECTIONS = ("best", "parameters", "latency", "time", "memory", "versions")


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench runs",
        description="List the runs there are, or show one of them in detail.",
    )
    parser.add_argument(
        "run", nargs="?", metavar="RUN", help="a run's folder, its id, the start of the id, or its hash"
    )
    parser.add_argument("--status", choices=[*map(str, Status), UNREADABLE], help="only runs that ended (or stand) so")
    parser.add_argument("--experiment", help="only runs of this experiment")
    parser.add_argument("--method", help="only runs of this method")
    parser.add_argument("--task", help="only runs on this task")
    parser.add_argument("--model", help="only runs from this model")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs"), help="where the records lie (default: outputs)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON: the records, with their folders")
    return parser


def main(argv: list[str]) -> int:
    """Print the runs that match, or the one named; returns the exit code.

    Raises UserError where the run named is not there, is ambiguous or cannot be read.
    """
    arguments = build_parser().parse_args(argv)
    if arguments.run is not None:
        record = load_run(arguments.run, arguments.output_dir)
        record.read()  # a damaged record is this command's error, not a line of its table
        run = inspect_run(record)
        if arguments.json:
            print(json.dumps(_as_json(run), indent=2, ensure_ascii=False))
        else:
            print_table(_details(run))
        return 0

    filters = {key: getattr(arguments, key) for key in ("status", "experiment", "method", "task", "model")}
    runs = find_runs(arguments.output_dir, **filters)
    if arguments.json:
        print(json.dumps([_as_json(run) for run in runs], indent=2, ensure_ascii=False))
    elif runs:
        print_table(_overview(runs), *_errors(runs))
    else:
        asked = ", ".join(f"{key} {value}" for key, value in filters.items() if value is not None)
        print(f"No runs{f' with {asked}' if asked else ''} under {arguments.output_dir}.")
    return 0


def _as_json(run: Run) -> dict[str, Any]:
    return plain({"id": run.id, **run.facts, "status": run.status, "folder": run.record.folder})


def _overview(runs: list[Run]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    experiments = len({run.facts.get("experiment") for run in runs}) > 1
    if experiments:
        table.add_column("experiment", overflow="fold")
    table.add_column("run", overflow="fold", min_width=20)
    table.add_column("status", no_wrap=True)
    table.add_column("score", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for run in runs:
        time = _section(run, "time").get("total")
        cells = [Text(str(run.facts.get("experiment", "")))] if experiments else []
        cells += [
            Text(run.id),
            Text(run.status, _COLOURS[run.status]),
            Text(_score(run)),
            Text(_percent(_section(run, "parameters").get("share_method"))),
            Text(_age(run)),
            Text(_duration(time) if isinstance(time, int | float) else ""),
        ]
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
    return f"{value:.4f} {primary}" if _is_number(value) else ""


def _percent(share: Any) -> str:
    return f"{share:.2%}" if _is_number(share) else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _age(run: Run) -> str:
    """Return the time since the run ended, or since it began where it has not."""
    since = parse_time(run.facts.get("finished")) or run.started
    return _duration((datetime.now(UTC) - since).total_seconds()) if since else ""


def _duration(seconds: float) -> str:
    """Return a duration in its two largest units: `42 s`, `3 min 5 s`, `2 h 10 min`, `5 d 3 h`."""
    whole = max(0, round(seconds))
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"
