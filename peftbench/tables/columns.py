"""The kinds of figures a table can have: what each is called, and where in a run's record it stands."""

from collections.abc import Callable
from dataclasses import replace

from peftbench.runs.result import Evaluation, Result
from peftbench.tables.table import Column

SCORES = (
    *("accuracy", "f1", "macro_f1", "roc_auc", "matthews", "pearson", "spearman"),
    *("miou", "pixel_accuracy", "ap", "ap50", "ap75"),
)
# scores that are shares and shown in percent
PERCENT = ("accuracy", "f1", "macro_f1", "miou", "pixel_accuracy", "ap", "ap50", "ap75")
# differences and deviations of any score are in hundredths
POINTS = 100.0

Reader = Callable[[Result], float | None]


def _share(result: Result) -> float | None:
    return 100 * result.parameters.share_method if result.parameters else None


def _memory(result: Result) -> float | None:
    """In MiB; on a CPU only of a process' first run."""
    peak = (result.memory.device_peak or result.memory.host_peak) if result.memory else None
    return None if peak is None else float(peak) / 2**20


def _trained(result: Result) -> float | None:
    return float(result.parameters.method) if result.parameters else None


def _train_time(result: Result) -> float | None:
    return result.time.train if result.time else None


# every column, in the order of files that hold them all; beside a figure that each run has: where its record has it
ENTRIES: tuple[tuple[Column, Reader | None], ...] = (
    (Column("share", "parameter share", "%", 3), _share),
    (Column("trained", "trained parameters", "", 0), _trained),
    (Column("accuracy", "accuracy", "%"), None),
    (Column("f1", "F1", "%"), None),
    (Column("macro_f1", "F1 (macro)", "%"), None),
    (Column("roc_auc", "ROC AUC", "", 3), None),
    (Column("matthews", "Matthews", "", 3), None),
    (Column("pearson", "Pearson", "", 3), None),
    (Column("spearman", "Spearman", "", 3), None),
    (Column("miou", "mIoU", "%"), None),
    (Column("pixel_accuracy", "pixel accuracy", "%"), None),
    (Column("ap", "AP", "%"), None),
    (Column("ap50", "AP50", "%"), None),
    (Column("ap75", "AP75", "%"), None),
    (Column("difference", "difference", "points", interval=True), None),
    (Column("p_best", "P(best)", "%", 0), None),
    (Column("kept", "score kept", "%", interval=True), None),
    (Column("spread", "spread over seeds", "points"), None),
    (Column("train_time", "training as run", "s", 0), _train_time),
    (Column("training", "training", "s", 0), None),
    (Column("step", "training step", "× full", 2), None),
    (Column("latency", "latency, batch 1", "× bare", 3), None),
    (Column("latency_merged", "merged", "× bare", 3), None),
    (Column("speed", "inference speed, large batch", "%"), None),
    (Column("switch", "task switch", "ms", 2), None),
    (Column("memory", "peak memory", "MiB", 0), _memory),
)
COLUMNS = {column.key: column for column, _ in ENTRIES}
PER_RUN = {column.key: read for column, read in ENTRIES if read}

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


def columns_of(classes: int) -> dict[str, Column]:
    """Return all columns as they are called for a task of so many classes: F1 of more than two is their mean."""
    if classes <= 2:
        return COLUMNS
    return {**COLUMNS, "f1": replace(COLUMNS["f1"], title=COLUMNS["macro_f1"].title)}


def in_unit(metric: str, value: float) -> float:
    """Return a recorded score (accuracy 0 … 1) in its column's unit."""
    return 100 * value if metric in PERCENT else value


# those that are counted, not measured: one run says all
EXACT = ("share", "trained")
# those that can be 0 or less, which no ratio can be made of
SIGNED = ("matthews", "pearson", "spearman", "difference", "speed")


def measured(
    key: str, result: Result, full_ms: float | None = None, shown: Evaluation | None = None
) -> tuple[float, float, float] | None:
    """Return (figure, low, high) of a column in `MEASURED`; None where this run was not measured.

    `shown` is the evaluation that the row shows: with something left out it has a latency of its own.
    `full_ms` is the time of a step of full fine-tuning that holds for all rows: each row measures its own ratio to
    it, but at another time, when the machine may have been slower.
    """
    of_evaluation = MEASURED[key] == "latency" and shown is not None and bool(shown.left_out)
    section = shown.latency if shown and of_evaluation else result.section(MEASURED[key]).result
    if not section or not result.time:
        return None
    if key == "step":
        return section["ratio"], section["ratio_low"], section["ratio_high"]
    if key == "training":
        steps = -(-result.examples["train"] // section["batch_size"]) * len(result.time.per_epoch)
        full_seconds = steps * (full_ms or section["full_ms"]) / 1000
        return tuple(full_seconds * section[end] for end in ("ratio", "ratio_low", "ratio_high"))
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
