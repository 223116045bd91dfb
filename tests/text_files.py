"""The config of a task made of the user's own files, as composing it gives it."""

from pathlib import Path
from types import SimpleNamespace

import yaml

CONF = Path(__file__).parents[1] / "conf"


def text_file(**fields):
    names = ["id", "subset", "revision", "folder", "archive", "path", "dir", "threshold"]
    defaults = dict.fromkeys(names) | {"packages": [], "files": {}, "max_length": 128}
    return SimpleNamespace(**defaults | yaml.safe_load((CONF / "task" / "text_file.yaml").read_text()) | fields)
