"""Records of schema version 1 (peftbench 0.1), read as those of today."""

from collections.abc import Mapping
from typing import Any

_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}
_SECTIONS = ("latency", "training_step", "switching")


def upgraded(old: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a version 1 `result.json` says, in the form of version 2.

    Such a record has no checksums, and what code made it is known by a digest that no code has any more: it is stale.
    Raises ValueError where a part that every finished run has is missing.
    """
    new = {key: value for key, value in old.items() if key not in (*_SECTIONS, "metrics", "best", "data", "code")}
    new |= {name: {"result": old.get(name)} for name in _SECTIONS}
    if "data" in old:
        new["origin"] = {"data": old["data"], "code": old.get("code") or ""}
    precision = _PRECISIONS.get(str(old.get("dtype")), "fp32")
    if "versions" in old:
        new["environment"] = {
            "versions": old["versions"],
            "device": old.get("device"),
            "device_type": "cuda" if _section(old, "memory").get("device_peak") else "cpu",
            "threads": old.get("threads"),
            "precision": precision,
            "git_commit": old.get("git_commit"),
        }
    best = _section(old, "best")
    new |= {"best_epoch": best.get("epoch"), "best": best.get("validation") or {}}
    if old.get("status") == "finished" and not _section(old, "metrics"):
        raise ValueError("metrics are missing")
    new["evaluations"] = [
        {
            "split": split,
            "examples": _section(old, "examples").get(split, 0),
            "metrics": metrics,
            "precision": precision,
            "data": old.get("data", ""),
            "predictions": "predictions.csv",
        }
        for split, metrics in _section(old, "metrics").items()
    ]
    return new


def _section(old: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = old.get(name)
    return value if isinstance(value, Mapping) else {}
