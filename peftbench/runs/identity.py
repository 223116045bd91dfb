"""What makes a run the run it is: the settings that change its result, and the name made of them."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from peftbench.files import plain

# Keys of `trainer` that do not change what is learned, so that changing them does not make another run.
NOT_HASHED = frozenset({"eval_batch_size", "checkpointing", "cache_frozen"})

# Settings of methods, and of tasks, that came later, at the values that leave a run the one it was without them.
NEUTRAL = {"layers": "all", "reduction_factor": None, "drop": "none", "complexity": 0.5, "prompts": 0}
_NEUTRAL_OF_TASKS = {"kind": "text"}

# What a task's config says for readers alone.
_SHOWN = {"ceiling"}

# Which of an asset's fields say what it is; the others say where it lies.
_ASSET_FIELDS = {
    "source",
    "id",
    "subset",
    "revision",
    "packages",
    "folder",
    "archive",
    "files",
    "path",
    "dir",
    "convert",
}
_IDENTITY = {
    "hub": {"id", "subset", "revision"},
    "glue": {"id", "subset", "revision"},
    "local": {"path", "dir", "files"},
}


# Settings of a method that follow from the ids of the runs it is made of.
_FOLLOWING_FROM_RUNS = frozenset({"adapters", "adapter_method"})


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return 8 hexadecimal digits that differ where the result may: method, task, model, trainer, seed.

    Where an asset lies does not count (a task's `dir`, mirrors, caches), what it is does: hub name and
    revision, the checksums of its files, and the path of a local one where they are not known. The precision is the
    one that the run computes in (see `runs.pinned_config`). An imported run is never one that would be trained.
    """
    method = _without(NEUTRAL, config["method"])
    if method.get("runs"):
        method = {key: value for key, value in method.items() if key not in _FOLLOWING_FROM_RUNS}
    trainer = {key: value for key, value in config["trainer"].items() if key not in NOT_HASHED}
    counted = {
        "method": method,
        "task": _without(_NEUTRAL_OF_TASKS, _identity(config["task"])),
        "model": _identity(config["model"]),
        "trainer": trainer,
        "seed": config["seed"],
    }
    if separate := {key: seed for key, seed in (config.get("seed_of") or {}).items() if seed is not None}:
        counted["seed_of"] = separate
    if imported := config.get("imported"):  # not trained here: what it holds is what it is
        counted["imported"] = imported["digest"]
    text = json.dumps(plain(counted), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _without(neutral: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in neutral or value != neutral[key]}


def same_asset(first: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two configs of a model or task name the same files, whatever else they set."""
    fields = [{key: value for key, value in _identity(a).items() if key in _ASSET_FIELDS} for a in (first, other)]
    return fields[0] == fields[1]


def _identity(asset: Mapping[str, Any]) -> dict[str, Any]:
    source = asset.get("source")
    if source == "pypi":
        # The files' own checksums outlive a repackaging; without them the wheels' are what is known.
        names = {"files"} if asset.get("files") else {"packages", "folder", "archive"}
    elif source == "local" and asset.get("files"):
        names = {"files"}
    else:
        names = _IDENTITY.get(str(source), _ASSET_FIELDS)
    return {key: value for key, value in asset.items() if key in names or key not in _ASSET_FIELDS | _SHOWN}


def run_id(config: Mapping[str, Any]) -> str:
    """Return `<method>-<task>-<model>-s<seed>-<hash>`, the run's name and the name of its folder."""
    names = [file_name(str(config[group]["name"])) for group in ("method", "task", "model")]
    return "-".join([*names, f"s{config['seed']}", fingerprint(config)])


def file_name(text: str) -> str:
    """Return the text as part of a file's name: what has a meaning in paths becomes `_`."""
    return re.sub(r"[^\w.+-]+", "_", text)
