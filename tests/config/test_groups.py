"""The options of a group as their files have them: read without Hydra, and to the same values."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from peftbench.config.folder import CONFIG_PATH
from peftbench.config.groups import read_group


@pytest.mark.parametrize("group", ["method", "model", "search", "table", "task", "trainer"])
def test_they_are_read_as_hydra_reads_them(group: str) -> None:
    found = read_group(group)
    assert found
    for config in found:
        path = Path(CONFIG_PATH, group, f"{config['name']}.yaml")
        expected = OmegaConf.to_container(OmegaConf.load(path))
        assert repr({**expected, **config}) == repr({**expected, "name": config["name"], "description": _first(path)})


def _first(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()
