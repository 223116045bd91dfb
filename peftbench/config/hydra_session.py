"""Hydra made ready to compose our config groups: where they lie, and how a line of overrides is read."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins

from peftbench.config.folder import CONFIG_PATH

VERSION_BASE = "1.3"


def _prefer_bundled_launchers() -> None:
    """Put our launcher configs in the place of the plugins' of the same names: Hydra would check ours against them."""
    Plugins.instance()  # finds the plugins, which store their configs
    stored = ConfigStore.instance().repo.get("hydra", {}).get("launcher", {})
    for path in (Path(CONFIG_PATH) / "hydra" / "launcher").glob("*.yaml"):
        stored.pop(path.name, None)


_prefer_bundled_launchers()
# a folder of hydra.searchpath that is not there: Hydra would go on without its configs
warnings.filterwarnings("error", r"provider=hydra\.searchpath .* is not available", UserWarning)


@contextmanager
def hydra_ready() -> Iterator[ConfigLoader]:
    """Make Hydra ready to compose, also while `hydra.main` runs; yield what knows the groups and options."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(CONFIG_PATH, job_name="peftbench", version_base=VERSION_BASE):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = running


def parse(overrides: Sequence[str], loader: ConfigLoader) -> list[Override]:
    """Parse overrides; raises OverrideParseException for one that cannot be read."""
    return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))


def combinations(overrides: list[Override]) -> list[list[str]]:
    """Return the override lists of every combination of comma-separated values."""
    (found,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return found
