"""Compose a config from overrides, as `peftbench train` does."""

from collections.abc import Sequence

import hydra
from omegaconf import DictConfig

from peftbench.config.folder import CONFIG_NAME
from peftbench.config.hydra_session import combinations, hydra_ready, parse
from peftbench.config.mistakes import translate


def compose(overrides: Sequence[str], name: str = CONFIG_NAME) -> DictConfig:
    """Compose the config `name`, that of one run, from Hydra overrides; raises UserError for a bad one."""
    try:
        with hydra_ready():
            return hydra.compose(name, overrides=list(overrides))
    except Exception as error:
        raise translate(error, overrides, name) from error


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Return the override lists of every combination of comma-separated values, as `-m` would run them."""
    try:
        with hydra_ready() as loader:
            return combinations(parse(overrides, loader))
    except Exception as error:
        raise translate(error, overrides) from error
