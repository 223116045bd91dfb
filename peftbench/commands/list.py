"""`peftbench list`: the methods, models, tasks and tables there are, read from the config files alone."""

import argparse
from collections.abc import Callable
from typing import Any

from peftbench.arguments import Parser
from peftbench.config.groups import BESIDE_SETTINGS, Config, read_group
from peftbench.config.values import settings_line
from peftbench.errors import UserError, nearest
from peftbench.terminal import console, print_as_json, print_table

_SOURCES = {"hub": "hub", "pypi": "package index", "local": "your own", "glue": "hub", "sklearn": "scikit-learn"}


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench list",
        description="List the options of `peftbench train` (method=, model=, task=) and `peftbench sweep` (table=).",
    )
    parser.add_argument("what", nargs="?", metavar="WHAT", help=f"{', '.join(GROUPS)} (default: all)")
    parser.add_argument("--json", action="store_true", help="print the config files and their descriptions as JSON")
    return parser


def main(argv: list[str]) -> int:
    """Print one list, or all; returns the exit code. Raises UserError for a list there is not."""
    arguments = build_parser().parse_args(argv)
    if arguments.what is not None and arguments.what not in GROUPS:
        raise UserError(f"no list of {arguments.what!r}. {nearest(arguments.what, GROUPS)}")
    names = [arguments.what] if arguments.what else list(GROUPS)
    lists = {name: read_group(name.removesuffix("s")) for name in names}
    if arguments.json:
        chosen: Any = lists[arguments.what] if arguments.what else lists
        print_as_json(chosen, indent=2)
    else:
        _print(lists)
    return 0


def _method(config: Config) -> dict[str, str]:
    recipe = config.get("recipe", {})
    shown = {key: value for key, value in config.items() if key not in ("name", "description", *BESIDE_SETTINGS)}
    return {"settings": settings_line(shown), "recipe": settings_line(recipe)}


def _model(config: Config) -> dict[str, str]:
    name = config.get("id") if config["source"] == "hub" else None
    return {"from": " ".join([_SOURCES[config["source"]], *([name] if name not in (None, "???") else [])])}


def _task(config: Config) -> dict[str, str]:
    return {
        "input": ", ".join(config.get("text", ["image"])),
        "metrics": ", ".join(config["metrics"]),
        "from": "package index" if config.get("packages") else _SOURCES[config["source"]],
    }


def _table(config: Config) -> dict[str, str]:
    return {"rows": str(len(config["rows"])), "seeds": str(config["seeds"]), "columns": ", ".join(config["columns"])}


# list → the columns it shows beside name and description
GROUPS: dict[str, Callable[[Config], dict[str, str]]] = {
    "methods": _method,
    "models": _model,
    "tasks": _task,
    "tables": _table,
}


def _print(lists: dict[str, list[Config]]) -> None:
    from rich.table import Table

    for number, (name, configs) in enumerate(lists.items()):
        rows = [
            {"name": config["name"], **GROUPS[name](config), "description": config["description"]} for config in configs
        ]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for column in rows[0]:
            title = name.removesuffix("s") if column == "name" else column
            table.add_column(title, overflow="fold", no_wrap=column not in ("settings", "columns", "description"))
        for row in rows:
            table.add_row(*row.values())
        if number:
            console.print()
        print_table(table)
