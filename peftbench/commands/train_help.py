"""`peftbench train --help`: what can be chosen, and every setting with its value and its meaning."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.table import Table

from peftbench.config.compose import compose
from peftbench.config.folder import CONFIG_NAME
from peftbench.config.hydra_session import hydra_ready
from peftbench.config.meanings import read_meanings
from peftbench.config.mistakes import translate
from peftbench.config.schema import GROUPS
from peftbench.config.task import drop_unused
from peftbench.terminal import console, print_table

_HEAD = """usage: peftbench train [GROUP=OPTION …] [KEY=VALUE …]
       peftbench train -m …    one run for each combination of comma-separated values

Train one method on one task, starting from one backbone.

  peftbench train method=lora method.rank=4 task=mrpc trainer.epochs=5
  peftbench train -m method=adapter,lora,prefix,prompt seed=0,1
"""
_FOOT = """
`peftbench train method=lora --help` shows that method's settings, `peftbench list` the available options,
`peftbench train --hydra-help` Hydra's own options. TAB completion: eval "$(peftbench -sc install=bash)"
"""


def print_help(overrides: Sequence[str]) -> None:
    """Print the help for the config that the overrides make; raises UserError where they cannot be read."""
    try:
        config: Any = OmegaConf.to_container(compose(overrides), resolve=True)
    except OmegaConfBaseException as error:
        raise translate(error, overrides) from error
    drop_unused(config["task"])
    config["method"].pop("search", None)  # no setting of a run
    config["task"].pop("recipe", None)  # trainer's settings show what it makes of them
    with hydra_ready() as loader:
        options = {group: loader.get_group_options(group) for group in GROUPS}
    chosen = {group: config[group].get("name", "default") for group in GROUPS}
    console.print(_HEAD)
    console.print("choose with group=option", style="bold")
    print_table(_table((group, ", ".join(names)) for group, names in options.items()))
    general = read_meanings("", CONFIG_NAME)
    _print_settings(
        "settings of every run", config, {k: v for k, v in general.items() if k.split(".")[0] not in GROUPS}
    )
    for group in GROUPS:
        meanings = {f"{group}.{key}": meaning for key, meaning in read_meanings(group, chosen[group]).items()}
        shared = {key: meaning for key, meaning in general.items() if key.startswith(f"{group}.")}
        _print_settings(f"{group}={chosen[group]}", config, shared | meanings)
    console.print(_FOOT, end="")


def _print_settings(title: str, config: dict[str, Any], meanings: Mapping[str, str]) -> None:
    """Print those settings of the config that have a meaning, as they are typed."""
    rows = [(f"{key}={_typed(value)}", meanings[key]) for key, value in _flat(config, meanings) if key in meanings]
    if rows:
        console.print(f"\n{title}", style="bold")
        print_table(_table(rows))


def _flat(config: dict[str, Any], whole: Container[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk to (dotted key, value) of every setting that is no group of others, or empty, or in one and of `whole`."""
    for key, value in config.items():
        if isinstance(value, dict) and value and not (prefix and f"{prefix}{key}" in whole):
            yield from _flat(value, whole, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _typed(value: Any) -> str:
    """Write a value as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_typed(entry)}' for key, entry in value.items())}}}"
    return str(value)


def _table(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column(overflow="fold", max_width=36)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
