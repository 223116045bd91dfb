"""`peftbench params`: parameter counts and shares from a config alone; no weights are loaded."""

import argparse
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from peftbench.arguments import Parser
from peftbench.errors import UserError

if TYPE_CHECKING:
    from peftbench.config.schema import RunConfig


@dataclass(frozen=True)
class ParameterRow:
    """One combination of overrides and its counts (see `peftbench.measuring.parameters.count_parameters`).

    Attributes:
        assumed_classes: how many the head was counted with where only the data tell; None where the task's config does.
    """

    method: str
    model: str
    task: str
    overrides: list[str]
    parameters: dict[str, int | float]
    assumed_classes: int | None = None


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = Parser(
        prog="peftbench params",
        description="Count exactly how many parameters a method trains, from the config alone; no weights are loaded.",
        epilog="Example: peftbench params model=bert_base method=adapter,lora,prefix",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="as for `peftbench train`; comma-separated values give one row per combination,"
        " and a setting that only some of the methods have is ignored for the others",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(argv: list[str]) -> int:
    """Print one row of counts for each combination of the overrides; returns the exit code.

    Raises UserError for a mistake in the overrides, or where a model's architecture cannot be had.
    """
    from peftbench.config.quoting import quote_free_text

    arguments = build_parser().parse_intermixed_args(argv)
    rows = _count(_combinations(quote_free_text(arguments.overrides)))
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _print(rows)
    return 0


def _combinations(overrides: list[str]) -> list[tuple[list[str], "RunConfig"]]:
    """Return the config of each combination, without the settings that only the other methods have."""
    from omegaconf import OmegaConf

    from peftbench.config.compose import compose, expand
    from peftbench.config.mistakes import UnknownKeyError
    from peftbench.config.schema import resolve

    configs: dict[tuple[str, ...], RunConfig] = {}
    refused: dict[str, UserError] = {}
    absent: set[tuple[tuple[str, ...], str]] = set()
    accepted: set[str] = set()
    for combination in expand(overrides):
        choices = tuple(override for override in combination if "." not in _key(override))
        while True:
            combination = [o for o in combination if (choices, _key(o)) not in absent]
            try:
                composed = compose(combination)
            except UnknownKeyError as error:
                refused.setdefault(_key(error.override), error)
                absent.add((choices, _key(error.override)))
            else:
                break
        accepted.update(map(_key, combination))
        for key in OmegaConf.missing_keys(composed):
            if key.startswith("task."):  # where the data lie does not matter here
                OmegaConf.update(composed, key, None)
        if tuple(combination) not in configs:
            configs[tuple(combination)] = _with_parts(resolve(composed))
    for key, refusal in refused.items():
        if key not in accepted:
            raise refusal
    return [(list(combination), config) for combination, config in configs.items()]


def _with_parts(config: "RunConfig") -> "RunConfig":
    """Look up the runs that a method is made of; where none are named, all that trains is counted none the less."""
    from peftbench.methods.parts import PartsConfig
    from peftbench.runs.pinned_config import pin_config

    return pin_config(config) if isinstance(config.method, PartsConfig) and config.method.adapters else config


def _key(override: str) -> str:
    return override.partition("=")[0]


def _count(combinations: list[tuple[list[str], "RunConfig"]]) -> list[ParameterRow]:
    from peftbench.runs.counts import assumed_classes, count_configs

    counted = count_configs([config for _, config in combinations])
    return [
        ParameterRow(
            config.method_name, config.model.name, config.task.name, overrides, counts, assumed_classes(config.task)
        )
        for (overrides, config), counts in zip(combinations, counted, strict=True)
    ]


def _print(rows: list[ParameterRow]) -> None:
    from rich import box
    from rich.table import Table

    from peftbench.terminal import console

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown_apart = {"method", "model"} | ({"task"} if len({row.task for row in rows}) == 1 else set())
    settings = [[o for o in row.overrides if _key(o) not in shown_apart] for row in rows]
    table.add_column("method", no_wrap=True)
    if any(settings):
        table.add_column("settings", overflow="fold")
    if several_models := len({row.model for row in rows}) > 1:
        table.add_column("model", no_wrap=True)
    for title in ("trained", "closed form", "head", "backbone", "trained / backbone", "with head / total"):
        table.add_column(title, justify="right", overflow="fold")
    for row, shown in zip(rows, settings, strict=True):
        counts = row.parameters
        numbers = [f"{counts[key]:,}" for key in ("method", "closed_form", "head", "backbone")]
        shares = [_percent(counts[key]) for key in ("share_method", "share_trained")]
        texts = [row.method, *([" ".join(shown)] if any(settings) else [])]
        table.add_row(*texts, *([row.model] if several_models else []), *numbers, *shares)
    console.print(table, end="", soft_wrap=False)
    if not several_models:
        console.print(f"backbone {rows[0].model}, task {rows[0].task}")
    for task, classes in {row.task: row.assumed_classes for row in rows if row.assumed_classes}.items():
        console.print(f"{task}: only the data tell its classes; the head is counted with {classes}")


def _percent(share: float) -> str:
    """Return a share in per cent with four significant digits, never as a power of ten."""
    digits = 0 if share == 0 else max(0, 3 - math.floor(math.log10(100 * share)))
    return f"{100 * share:.{digits}f} %"
