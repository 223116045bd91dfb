"""The options of a config group, read from their files alone."""

import re
from pathlib import Path
from typing import Any

import yaml

from peftbench.config.folder import CONFIG_PATH

Config = dict[str, Any]
# what a method's file holds besides its name and settings
BESIDE_SETTINGS = ("recipe", "search")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads a file as Hydra does, to which 1e-4 is a number, in a tenth of the time."""


_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, [*"-+0123456789"])


def read_group(group: str) -> list[Config]:
    """Return the options of a config group by name: what each file says, its first line as description."""
    options = []
    folder = Path(CONFIG_PATH, group)
    for path in sorted(folder.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        config = yaml.load(text, _Loader)
        assert isinstance(config, dict)
        name = path.relative_to(folder).with_suffix("").as_posix()
        named = {"name": name, "description": text.partition("\n")[0].removeprefix("#").strip()}
        options.append({**named, **{str(key): value for key, value in config.items() if key != "name"}})
    return options
