"""What a config says of where a model or a data set comes from."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Asset(Protocol):
    """The fields that say where a model or a task comes from."""

    @property
    def name(self) -> str:
        """The name it is chosen by."""

    @property
    def source(self) -> str:
        """`hub`, `pypi` or `local`; a task also `glue`."""

    @property
    def id(self) -> str | None:
        """Hub repository."""

    @property
    def revision(self) -> str | None:
        """Branch, tag or commit of the hub repository."""

    @property
    def packages(self) -> Sequence[Mapping[str, str]]:
        """`name`, `version` and `sha256` of each wheel; with `file`, the name of a source archive that is taken."""

    @property
    def folder(self) -> str | None:
        """Folder inside the wheel, or inside the archive that the wheels hold in parts."""

    @property
    def archive(self) -> str | None:
        """File name of a zip that the wheels hold in parts: `<archive>.001` in the first, and so on.

        Of a whole zip or tar, where the package is a source archive.
        """

    @property
    def files(self) -> Mapping[str, str]:
        """SHA-256 of single files, their paths relative to `folder`."""

    @property
    def path(self) -> str | None:
        """Local folder."""


class ModelAsset(Asset, Protocol):
    """The fields that say where a model comes from, and how its files are read."""

    @property
    def architecture(self) -> Mapping[str, Any]:
        """Its `model_type` and numbers."""

    @property
    def convert(self) -> str | None:
        """How the files are brought into transformers' format; None where they are in it."""
