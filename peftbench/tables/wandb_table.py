"""A table in Weights & Biases: as a wandb Table, its plots as images, all its files as an artifact."""

import re
from collections.abc import Sequence
from pathlib import Path

from peftbench.config import LoggerConfig
from peftbench.records.wandb_run import start_wandb
from peftbench.tables.table import Table

_FIELDS = ("value", "sd", "low", "high", "lab", "verdict")


def log_table(table: Table, files: Sequence[Path], logger: LoggerConfig, group: str) -> None:
    """Log the table as a run of its own, in the group of the runs it is made of.

    Args:
        table: the table. files: what `write_table` wrote. logger: with name wandb. group: the experiment.

    Raises UserError where wandb cannot be started.
    """
    import wandb

    name = re.sub(r"\W+", "-", table.name)
    run = start_wandb(
        logger,
        folder=files[0].parent,
        name=f"table {table.name}",
        group=group,
        job_type="table",
        config={"table": table.name, "model": table.model, "task": table.task, "seeds": table.seeds},
    )
    failed = True
    try:
        columns = [(column.key, field) for column in table.all_columns for field in _FIELDS]
        columns = [
            (key, field) for key, field in columns if any(_at(row.cells, key, field) is not None for row in table.rows)
        ]
        rows = [[row.label, *(_at(row.cells, key, field) for key, field in columns)] for row in table.rows]
        headings = ["row", *(key if field == "value" else f"{key} {field}" for key, field in columns)]
        run.log({f"tables/{name}": wandb.Table(columns=headings, data=rows)})
        run.log({f"plots/{path.stem}": wandb.Image(str(path)) for path in files if path.suffix == ".png"})
        artifact = wandb.Artifact(f"table-{name}", type="table", description=table.title)
        for path in files:
            artifact.add_file(str(path))
        run.log_artifact(artifact)
        failed = False
    finally:
        run.finish(exit_code=1 if failed else 0)


def _at(cells: dict, key: str, field: str) -> object:
    return getattr(cells[key], field) if key in cells else None
