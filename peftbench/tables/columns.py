"""The kinds of figures a table can have: what each is called, and where in a run's record it stands."""

from collections.abc import Callable, Mapping
from typing import Any

from peftbench.tables.table import Column

Result = Mapping[str, Any]

SCORES = ("accuracy", "f1", "matthews", "pearson", "spearman")
# scores that are shares and shown in percent; the others are correlations
PERCENT = ("accuracy", "f1")

COLUMNS = {
    column.key: column
    for column in (
        Column("share", "parameter share", "%", "lower", 3),
        Column("trained", "trained parameters", "", "lower", 0),
        Column("accuracy", "accuracy", "%", "higher"),
        Column("f1", "F1", "%", "higher"),
        Column("matthews", "Matthews", "", "higher", 3),
        Column("pearson", "Pearson", "", "higher", 3),
        Column("spearman", "Spearman", "", "higher", 3),
        Column("difference", "difference", "points", "higher", interval=True),
        Column("kept", "score kept", "%", "higher", interval=True),
        Column("spread", "spread over seeds", "points", "lower"),
        Column("train_time", "training as run", "s", "lower", 0),
        Column("training", "training", "s", "lower", 0),
        Column("step", "training step", "× full", "lower", 2),
        Column("latency", "latency, batch 1", "× bare", "lower", 3),
        Column("latency_merged", "merged", "× bare", "lower", 3),
        Column("speed", "inference speed, large batch", "%", "higher"),
        Column("switch", "task switch", "ms", "lower", 2),
        Column("memory", "peak memory", "MiB", "lower", 0),
    )
}

# What is measured once, behind all training, instead of once a seed: column → the section of the record it needs.
# `training` is steps × the time of a step so measured: the time as run depends on what else the machine did.
MEASURED = {
    "latency": "latency",
    "latency_merged": "latency",
    "speed": "latency",
    "training": "training_step",
    "step": "training_step",
    "switch": "switching",
}


def in_unit(metric: str, value: float) -> float:
    """Return a recorded score (accuracy 0 … 1) in its column's unit."""
    return 100 * value if metric in PERCENT else value


def points(metric: str) -> float:
    """Return by how much a score's difference is multiplied to be in points."""
    return 100.0 if metric in PERCENT else 1.0


def _share(result: Result) -> float:
    return 100 * float(result["parameters"]["share_method"])


def _memory(result: Result) -> float:
    memory = result["memory"]
    return float(memory["device_peak"] or memory["host_peak"]) / 2**20


# figures that every run has one of
PER_RUN: dict[str, Callable[[Result], float]] = {
    "share": _share,
    "trained": lambda result: float(result["parameters"]["method"]),
    "train_time": lambda result: float(result["time"]["train"]),
    "memory": _memory,
}


def measured(key: str, result: Result) -> tuple[float, float, float] | None:
    """Return (figure, low, high) of a column in `MEASURED`; None where this run was not measured."""
    section = result.get(MEASURED[key])
    if not section:
        return None
    if key == "step":
        return section["ratio"], section["ratio_low"], section["ratio_high"]
    if key == "training":
        steps = -(-result["examples"]["train"] // section["batch_size"]) * len(result["time"]["per_epoch"])
        seconds = steps * section["ms"] / 1000
        return seconds, seconds, seconds
    if key == "switch":
        return section["ms"]["median"], section["ms"]["least"], section["ms"]["most"]
    settings = section["settings"]
    if key == "speed":
        largest = max(settings, key=lambda setting: setting["batch"] * setting["length"])
        slower, low, high = (largest[f"ratio{end}"] for end in ("", "_low", "_high"))
        return 100 / slower - 100, 100 / high - 100, 100 / low - 100
    name = "merged_ratio" if key == "latency_merged" else "ratio"
    single = max((s for s in settings if s["batch"] == 1 and name in s), key=lambda s: s["length"], default=None)
    return (single[name], single[f"{name}_low"], single[f"{name}_high"]) if single else None
