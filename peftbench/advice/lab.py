"""What the lab's tables say: the lab's own figures, as the specs of `conf/table/lab` quote them."""

from collections.abc import Mapping, Sequence
from typing import Any

from peftbench.advice.comparison import LAB, Candidate, Comparison
from peftbench.config.groups import BESIDE_SETTINGS, read_group
from peftbench.tables.columns import SCORES
from peftbench.tables.table import Cell

NO_DECISION_TABLES = (
    "the lab's decision tables are not among peftbench's sources: its answers are read off those tables of"
    " its figures that the presets quote (conf/table/lab)"
)


def read_lab() -> list[Comparison]:
    """Return the lab's tables that have figures of their own."""
    defaults = {config["name"]: config for config in read_group("method")}
    found = []
    for spec in read_group("table"):
        rows = [row for row in spec["rows"] if row.get("lab")]
        if spec["name"].startswith("lab/") and rows:
            base = dict(line.split("=", 1) for line in spec["base"])
            candidates = [_candidate(row, defaults) for row in rows]
            judged = [key for key in (*SCORES, "kept") if any(key in candidate.cells for candidate in candidates)]
            found.append(
                Comparison(
                    kind=LAB,
                    title=spec["title"],
                    source=f"the lab’s table of {spec['name'].removeprefix('lab/').replace('_', ' ')}",
                    model=base["model"],
                    task=base["task"],
                    task_type="",
                    evaluation="validation",
                    primary=judged[0] if judged else "",
                    candidates=candidates,
                )
            )
    return found


def _candidate(row: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]) -> Candidate:
    cells = {key: Cell(value) for key, value in row["lab"].items()}
    if "speed" in cells and "latency" not in cells:  # the lab gives no batch size: p % slower is taken for latency too
        cells["latency"] = Cell(100 / (100 + row["lab"]["speed"]))
    return Candidate(row["label"], row["overrides"], _method(row["overrides"], defaults), cells)


def _method(overrides: Sequence[str], defaults: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings of the method that a row names, as its config has them."""
    from omegaconf import OmegaConf

    name = next(line.partition("=")[2] for line in overrides if line.startswith("method="))
    given: Any = OmegaConf.to_container(
        OmegaConf.from_dotlist([line for line in overrides if line.startswith("method.")])
    )
    settings = {**defaults[name], **given.get("method", {})}
    return {key: value for key, value in settings.items() if key not in ("description", *BESIDE_SETTINGS)}
