"""`peftbench sweep`: train what a table still lacks, through any Hydra launcher, measure, and show the table."""

import argparse
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from peftbench.commands import progress, search
from peftbench.commands.missing import exit_code, train_missing
from peftbench.commands.search_request import is_search
from peftbench.commands.table import show
from peftbench.commands.train import interrupt_on_sigterm
from peftbench.commands.wanted import TableRequest, key_of, read_request
from peftbench.config import resolve
from peftbench.errors import INTERRUPTED, PeftbenchError, UserError
from peftbench.records.lock import Locked, RunLock
from peftbench.records.record import Record
from peftbench.records.wandb_run import log_measured
from peftbench.tables.build import build_table
from peftbench.tables.collect import Found, Wanted, collect
from peftbench.tables.columns import MEASURED
from peftbench.tables.formats import write_table
from peftbench.tables.wandb_table import log_table

# launchers that run here: what depends on an otherwise idle machine is measured behind all training
_LOCAL = ("basic", "joblib")
_SECTIONS = ("latency", "training_step", "switching")
_POLL_SECONDS = 2.0

_EXAMPLES = """
a table
  table=lab/bottleneck     `peftbench list tables` shows those there are
  seeds=3                  a number of seeds, or a list: seeds=[0,1,2]
  model=minilm task=rte    settings of all runs, as for `peftbench train`
  on_error=stop            start nothing further once a run has failed (default: continue)
  stale=rerun              train runs of other code again; stale=use takes them as they are (default: leave)
  hydra/launcher=joblib    several runs at a time; slurm and ray for a cluster

The table, its plots and one page with everything are written to OUTPUT_DIR/EXPERIMENT/tables/TABLE/.

a search, chosen on validation and trained again on fresh seeds
  search=grid              every combination of the values given: trainer.lr=1e-4,1e-3 method.rank=4,8
  search=random            search.trials of them; also from ranges: 'trainer.lr=tag(log,interval(1e-5,1e-2))'
  search=optuna            the same spaces (pip install 'peftbench[optuna]')
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    parser = argparse.ArgumentParser(
        prog="peftbench sweep",
        description="Train the runs that a table still lacks and show it, or search for the best settings."
        " The same command goes on where it stopped.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "settings", nargs="+", metavar="KEY=VALUE", help="the table or search, and settings of its runs"
    )
    return parser


def main(argv: list[str]) -> int:
    """Run the sweep; returns 0, 1 where a run failed, 2 for a mistake a run met, 130 where it was interrupted.

    Raises UserError for a mistake in the line, the table, or a row's config.
    """
    settings = build_parser().parse_args(argv).settings
    os.environ["HYDRA_FULL_ERROR"] = "1"
    if any(key_of(line) == "force" for line in settings):
        raise UserError("a sweep trains what is missing, without force=…; stale=rerun trains runs of other code again")
    if is_search(settings):
        return search.main(settings)
    request = read_request(settings)
    interrupt_on_sigterm()
    code = 0
    mistakes: dict[Path, str] = {}
    try:
        _train(request, mistakes)
        code = _measure(request)
    except KeyboardInterrupt:
        code = INTERRUPTED
    found = collect(request.wanted, request.stale == "use", mistakes)
    table = build_table(request.spec, found, request.command)
    show(table)
    folder = tables_folder(request)
    files = write_table(table, folder)
    progress.console.print(f"\ntable, plots and page: {folder}/", markup=False)
    if request.config.logger.name == "wandb" and request.config.logger.mode != "disabled":
        log_table(table, files, request.config.logger, request.config.experiment)
    return code or exit_code(found, mistakes)


def tables_folder(request: TableRequest) -> Path:
    """Return where the table's files go."""
    return Path(request.config.output_dir) / request.config.experiment / "tables" / request.spec.name


# ---- training ----------------------------------------------------------------------------------------------


def _train(request: TableRequest, mistakes: dict[Path, str]) -> None:
    """Train what is missing, first the runs that others need."""
    prepared = {row.label for row in request.spec.prepare}
    for first in (True, False):
        wanted = [run for run in request.wanted if (run.label in prepared) == first]
        more = partial(_measured_at_once, request)
        if not train_missing(wanted, request.hydra, request.stale, mistakes, more, request.on_error == "stop"):
            return


def _measured_at_once(request: TableRequest, run: Found) -> list[str]:
    """Return what a job is to measure itself: on other machines all that is shown, once a row; here nothing yet."""
    itself = run.wanted.seed == min(request.spec.seeds) and not _is_local(request)
    sections = _wanted_sections(request, run.wanted) if itself else set()
    return [f"measure.{section}={str(section in sections).lower()}" for section in _SECTIONS]


def _wanted_sections(request: TableRequest, run: Wanted) -> set[str]:
    """Return what the shown columns need to have measured, unless the line turns it off."""
    needed = {MEASURED[key] for key in request.spec.columns if key in MEASURED}
    given = {section: _last_value(run.overrides, f"measure.{section}") for section in needed}
    return {section for section, value in given.items() if value is None or run.config["measure"][section]}


def _is_local(request: TableRequest) -> bool:
    chosen = _last_value(request.hydra, "hydra/launcher") or "basic"
    # ray has a cluster of its own on this machine unless it is told of another
    own = chosen == "ray" and (_last_value(request.hydra, "hydra.launcher.address") or "local") == "local"
    return own or chosen in _LOCAL


def _last_value(lines: Iterable[str], key: str) -> str | None:
    """Return what the last override of `key` sets, None where there is none."""
    values = [line.partition("=")[2] for line in lines if key_of(line) == key]
    return values[-1] if values else None


# ---- measuring ---------------------------------------------------------------------------------------------


def _measure(request: TableRequest) -> int:
    """Measure, one run of each row, what its columns need and no run of it has; nothing else runs meanwhile.

    Returns 0, or the exit code of the first error.
    """
    if not _lacking(request):
        return 0
    if not _is_local(request):
        labels = ", ".join(label for label, _, _ in _lacking(request))
        progress.console.print(f"not measured: {labels}; hydra/launcher=basic measures them on this machine")
        return 0
    code = 0
    with _alone(Path(request.config.output_dir)):
        for label, run, sections in _lacking(request):  # another sweep may have measured some meanwhile
            progress.console.print(f"measuring {label}: {', '.join(sorted(sections)).replace('_', ' ')}")
            try:
                measure_again(run.record, sections)
            except PeftbenchError as error:
                progress.tell_error(error)
                code = code or error.exit_code
    return code


def _lacking(request: TableRequest) -> list[tuple[str, Found, set[str]]]:
    """Return the rows that lack sections, each with the run to measure and what it is to measure."""
    found = collect(request.wanted, use_stale=request.stale == "use")
    lacking = []
    for label in [row.label for row in request.spec.rows]:
        used = [run for run in found if run.wanted.label == label and run.used]
        if used:
            wanted = _wanted_sections(request, used[0].wanted)
            lacking.append((label, used[0], {name for name in wanted if not any(r.result.get(name) for r in used)}))
    return [row for row in lacking if row[2]]


@contextmanager
def _alone(output_dir: Path) -> Iterator[None]:
    """Keep other sweeps over the same records from measuring inside the block; wait for one that does."""
    lock = RunLock(output_dir / ".measuring")
    waited = False
    while True:
        try:
            lock.acquire()
            break
        except Locked:
            if not waited:
                progress.console.print("waiting for another sweep that measures", style="dim")
                waited = True
            time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):  # another sweep waits for it
            lock.folder.rmdir()


def measure_again(record: Record, sections: set[str]) -> None:
    """Measure sections of a finished run's record anew, with its trained adapter, and put them into it."""
    from peftbench.measuring.run import measure_run
    from peftbench.preparation import prepare
    from peftbench.serving.adapter import load_adapter

    config = resolve(OmegaConf.create(record.config()))
    choice: dict[str, Any] = {section: section in sections for section in _SECTIONS}
    config = replace(config, measure=replace(config.measure, **choice))
    prepared = prepare(config, reuse=True)
    prepared.backbone.model.to(prepared.device)
    method = load_adapter(record.adapter_dir, prepared.backbone)
    data = prepared.splits["train"]
    measured, failures = measure_run(method, prepared.backbone, prepared.first_row, data, record.adapter_dir, config)
    with RunLock(record.folder):
        record.update(**{section: measured[section] for section in sections})
        log_measured(config, record)
    if failures:
        raise failures[0]
