"""Where the config files lie; found without Hydra, for commands that only read them."""

from pathlib import Path

from peftbench.errors import UserError

CONFIG_NAME = "train"
SWEEP_NAME = "sweep"


def _config_path() -> Path:
    """Return the folder of the config groups: the installed package's, or the repository's `conf`."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / f"{CONFIG_NAME}.yaml").is_file():
            return folder
    raise UserError("peftbench's config files are missing: install it again")


CONFIG_PATH = str(_config_path())
