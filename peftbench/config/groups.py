"""The options of a config group, read from their files alone."""

from pathlib import Path
from typing import Any

Config = dict[str, Any]


def read_group(group: str) -> list[Config]:
    """Return the options of a config group by name: what each file says, its first line as description."""
    from omegaconf import OmegaConf

    from peftbench.config.hydra_session import CONFIG_PATH

    options = []
    folder = Path(CONFIG_PATH, group)
    for path in sorted(folder.rglob("*.yaml")):
        config = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(config, dict)
        first, _, _ = path.read_text(encoding="utf-8").partition("\n")
        name = path.relative_to(folder).with_suffix("").as_posix()
        named = {"name": name, "description": first.removeprefix("#").strip()}
        options.append({**named, **{str(key): value for key, value in config.items() if key != "name"}})
    return options
