"""Where a model or a data set comes from, as a config says it."""

from dataclasses import dataclass, field
from typing import Any

from peftbench.config.ranges import between, one_of
from peftbench.config.sources import check_source
from peftbench.files import expanded


@dataclass
class AssetConfig:
    """Where a model or a data set comes from; see `peftbench.assets`."""

    name: str
    source: str
    id: str | None = None
    subset: str | None = None
    revision: str | None = None
    packages: list[dict[str, str]] = field(default_factory=list)
    folder: str | None = None
    archive: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    path: str | None = None


@dataclass
class ModelConfig(AssetConfig):
    """A backbone. `dropout` replaces the model's own rates; None keeps them."""

    architecture: dict[str, Any] = field(default_factory=dict)
    convert: str | None = None
    dropout: float | None = None

    def __post_init__(self) -> None:
        one_of("model.source", self.source, ("hub", "pypi", "local"))
        check_source(self, "model")
        if self.convert is not None:
            one_of("model.convert", self.convert, ("onnx_dinov2",))
        self.path = absolute(self.path)
        if self.dropout is not None:
            between("model.dropout", self.dropout, 0, 0.99)


def absolute(path: str | None) -> str | None:
    """Write a path so that a later command finds it from any folder."""
    return None if path is None else str(expanded(path).absolute())
