"""A table in Weights & Biases: as a wandb Table, its plots as images, all its files as an artifact."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peftbench.config.schema import LoggerConfig
from peftbench.loggers.wandb_run import start_wandb, wandb_refusals
from peftbench.tables.table import Table

_FIELDS = ("value", "sd", "low", "high", "lab", "verdict")


@wandb_refusals()
def log_table(table: Table, files: Sequence[Path], logger: LoggerConfig, group: str) -> None:
    """Log the table as a run of its own, in the group of the runs it is made of.

    Args:
        table: the table. files: what `write_table` wrote. logger: with name wandb. group: the experiment.

    Raises UserError where wandb refuses it.
    """
    import wandb

    folder = files[0].parent
    run = start_wandb(
        logger,
        folder=folder,
        name=f"table {table.name}",
        group=group,
        job_type="table",
        config={"table": table.name, "model": table.model, "task": table.task, "seeds": table.seeds},
    )
    code = 1
    try:
        columns = [(column.key, field) for column in table.all_columns for field in _FIELDS]
        columns = [
            (key, field) for key, field in columns if any(_at(row.cells, key, field) is not None for row in table.rows)
        ]
        rows = [[row.label, *(_at(row.cells, key, field) for key, field in columns)] for row in table.rows]
        headings = ["row", *(key if field == "value" else f"{key} {field}" for key, field in columns)]
        with _staged_in(folder / "wandb"):
            images = {f"plots/{path.stem}": wandb.Image(str(path)) for path in files if path.suffix == ".png"}
            # under one key whatever the table, so that one panel shows the tables of a project
            run.log({"table": wandb.Table(columns=headings, data=rows), **images})
            name = re.sub(r"\W+", "-", table.name)
            artifact = wandb.Artifact(f"table-{name}", type="table", description=table.title)
            for path in files:
                artifact.add_file(str(path))
            run.log_artifact(artifact)
            code = 0
    finally:
        run.finish(exit_code=code)


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Let wandb copy artifacts' files into `folder` instead of the home folder, which a cluster may not keep."""
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str(folder.absolute())
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]


def _at(cells: dict, key: str, field: str) -> object:
    return getattr(cells[key], field) if key in cells else None
