"""Models in a folder of the user's."""

from pathlib import Path

from peftbench.assets.asset import Asset
from peftbench.errors import UserError
from peftbench.files import expanded, is_there


def local_model(asset: Asset) -> Path:
    """Return the folder of a model that lies on this machine; raises UserError where it holds none."""
    if not asset.path:
        raise UserError("model=local needs a folder: model.path=FOLDER")
    folder = expanded(asset.path)
    if not is_there(folder, Path.is_dir):
        missing = "it is a file" if is_there(folder) else "there is no such folder"
        raise UserError(f"no such model folder: {folder} ({missing}); set model.path to a saved model's folder")
    if not is_there(folder / "config.json", Path.is_file):
        raise UserError(
            f"no such model folder: {folder} (it has no config.json); "
            "set model.path to a folder written by save_pretrained"
        )
    return folder
