"""What the lab's tables say: the lab's own figures, as the specs of `conf/table/lab` quote them."""

from collections.abc import Sequence
from typing import Any

from peftbench.advice.comparison import LAB, Candidate, Comparison
from peftbench.config.groups import read_group
from peftbench.tables.columns import COLUMNS, SCORES
from peftbench.tables.table import Cell

# the lab's tables of decisions are in none of our sources: nothing may be said for them
NO_DECISION_TABLES = (
    "the lab's decision tables (9.2, 10.2) are not among peftbench's sources; what follows is read off the lab's"
    " tables of figures that its presets quote (conf/table/lab)"
)


def read_lab() -> list[Comparison]:
    """Return the lab's tables that have figures of their own."""
    found = []
    for spec in read_group("table"):
        candidates = [_candidate(row) for row in spec["rows"] if row.get("lab")]
        if spec["name"].startswith("lab/") and candidates:
            base = dict(line.split("=", 1) for line in spec["base"])
            judged = [key for key in (*SCORES, "kept") if any(key in one.cells for one in candidates)]
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


def _candidate(row: dict[str, Any]) -> Candidate:
    cells = {key: Cell(value) for key, value in row["lab"].items() if key in COLUMNS}
    if "speed" in cells and "latency" not in cells:  # the lab gives no batch size: p % slower is taken for latency too
        cells["latency"] = Cell(100 / (100 + row["lab"]["speed"]))
    return Candidate(row["label"], row["overrides"], method_of(row["overrides"]), cells)


def method_of(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the settings of the method that overrides name, its name among them."""
    from omegaconf import OmegaConf

    settings = OmegaConf.from_dotlist([line for line in overrides if line.startswith("method.")])
    name = next((line.partition("=")[2] for line in overrides if line.startswith("method=")), "adapter")
    chosen: Any = OmegaConf.to_container(settings)
    return {"name": name, **chosen.get("method", {})}
