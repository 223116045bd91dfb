"""Makes tables and writes them to docs/results/<model>-<task>/, as Markdown and as a page, and for `peftbench advise`.

    python scripts/lab_tables.py model=minilm seeds=3
    python scripts/lab_tables.py --only family --tasks mrpc,movies_binary tuned=8 until=decided budget=4h
    python scripts/lab_tables.py --only family task=mrpc,movies_binary seeds=3

Of several tasks, as `task=…` names them, a table with a column a task is written too, to docs/results/<model>-<table>.
What is given holds for all tables, as for `peftbench sweep`. Runs that are there already are not trained again, so an
interrupted call goes on; tables share runs. Nothing else should run on the machine: what a table shows of time is
measured behind its training.
"""

import argparse
import os
import platform
import sys
from itertools import product
from pathlib import Path

from peftbench.advice.shipped import FOLDER, to_comparison, write_comparison
from peftbench.cli import main as peftbench
from peftbench.errors import UserError
from peftbench.files import atomic_write, make_folder
from peftbench.runs.origin import processor
from peftbench.search.found_table import build_tables, read_tables
from peftbench.sweeps.request import command_of, read_request
from peftbench.sweeps.tasks import check_tasks, split_tasks
from peftbench.tables.export.html import to_html
from peftbench.tables.export.markdown import to_markdown
from peftbench.tables.table import Table
from peftbench.terminal import run_script

TABLES = ("lab/bottleneck", "lab/insertion", "lab/methods", "lab/lora_rank")
RESULTS = Path(__file__).parents[1] / "docs" / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default=",".join(TABLES), metavar="TABLE,…", help="default: %(default)s")
    parser.add_argument("--tasks", metavar="TASK,…", help="each table on each of these; default: the table's")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    tasks = [[f"task={task}"] for task in arguments.tasks.split(",")] if arguments.tasks else [[]]
    names = arguments.only.split(",")
    lines = [(name, [f"table={name}", *task, *arguments.settings]) for task, name in product(tasks, names)]
    for _, line in lines:  # a mistake in the last one is told before hours of the first
        check_tasks([read_request(task_line, tunes=True) for task_line in split_tasks(line)])
    codes = []
    for name, line in lines:
        codes.append(peftbench(["sweep", *line]))
        if codes[-1] not in (0, 1):
            return codes[-1]
        try:
            write_tables(name, line)
        except UserError as error:  # e.g. the budget ended before every row was tuned
            codes.append(1)
            print(f"{name}: {error}", file=sys.stderr)
    return max(codes)


def write_tables(name: str, line: list[str]) -> None:
    """Write the tables that the finished runs of a `peftbench sweep` make, and those of one task for `advise`."""
    tables, short = read_tables(split_tasks(line)), name.rpartition("/")[2]
    for of_task in tables:
        table = of_task.build()
        setting = f"{table.model}-{table.task}"
        write_comparison(to_comparison(table, of_task.found), FOLDER / setting / f"{short}.json")
        write_texts(table, RESULTS / setting, short)
    if len(tables) > 1:
        table = build_tables(tables, command_of(line))
        write_texts(table, RESULTS, f"{table.model}-{short}")


def write_texts(table: Table, folder: Path, name: str) -> None:
    """Write a table as Markdown and as a page."""
    make_folder(folder)
    with atomic_write(folder / f"{name}.md") as file:
        file.write(f"{to_markdown(table)}\nMade on {machine()}.\n")
    with atomic_write(folder / f"{name}.html") as file:
        file.write(to_html(table))


def machine() -> str:
    """Describe this machine: processor, cores, memory, system, accelerator."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{gpu}{processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}"


if __name__ == "__main__":
    run_script(main)
