"""`peftbench sweep`: train what a table still lacks, through any Hydra launcher, measure, and show the table."""

import argparse
import os
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
from peftbench.commands.wanted import TableRequest, read_request
from peftbench.config import resolve
from peftbench.errors import PeftbenchError
from peftbench.records.lock import RunLock
from peftbench.records.record import Record
from peftbench.records.wandb_run import log_measured
from peftbench.tables.build import build_table
from peftbench.tables.collect import Found, Wanted, collect
from peftbench.tables.columns import MEASURED
from peftbench.tables.formats import write_table
from peftbench.tables.wandb_table import log_table

_INTERRUPTED = 130
# launchers that run here: what depends on an otherwise idle machine is measured behind all training
_LOCAL = ("basic", "joblib")
_SECTIONS = ("latency", "training_step", "switching")

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
        code = _INTERRUPTED
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
    at_once = _at_once(request) if request.on_error == "stop" else None
    for first in (True, False):
        wanted = [run for run in request.wanted if (run.label in prepared) == first]
        more = partial(_measured_at_once, request)
        if not train_missing(wanted, request.hydra, request.stale, mistakes, more, at_once):
            return


def _measured_at_once(request: TableRequest, run: Found) -> list[str]:
    """Return what a job is to measure itself: on other machines all that is shown, once a row; here nothing yet."""
    itself = run.wanted.seed == min(request.spec.seeds) and not _is_local(request)
    sections = _wanted_sections(request, run.wanted) if itself else set()
    return [f"measure.{section}={str(section in sections).lower()}" for section in _SECTIONS]


def _wanted_sections(request: TableRequest, run: Wanted) -> set[str]:
    """Return what the shown columns need to have measured, unless the line turns it off."""
    needed = {MEASURED[key] for key in request.spec.columns if key in MEASURED}
    return {section for section in needed if f"measure.{section}=false" not in run.overrides}


def _launcher(request: TableRequest) -> str:
    chosen = [line.partition("=")[2] for line in request.hydra if line.startswith("hydra/launcher=")]
    return chosen[-1] if chosen else "basic"


def _is_local(request: TableRequest) -> bool:
    return _launcher(request) in _LOCAL


def _at_once(request: TableRequest) -> int:
    """Return how many runs are started together where an error is to stop the rest."""
    return 1 if _launcher(request) == "basic" else os.cpu_count() or 1


# ---- measuring ---------------------------------------------------------------------------------------------


def _measure(request: TableRequest) -> int:
    """Measure, one run of each row, what its columns need and no run of it has; nothing else runs meanwhile.

    Returns 0, or the exit code of the first error.
    """
    if not _is_local(request):
        return 0
    code = 0
    found = collect(request.wanted, use_stale=request.stale == "use")
    for label in [row.label for row in request.spec.rows]:
        used = [run for run in found if run.wanted.label == label and run.used]
        if not used:
            continue
        lacking = {s for s in _wanted_sections(request, used[0].wanted) if not any(r.result.get(s) for r in used)}
        if lacking:
            progress.console.print(f"measuring {label}: {', '.join(sorted(lacking)).replace('_', ' ')}")
            try:
                measure_again(used[0].record, lacking)
            except PeftbenchError as error:
                progress.tell_error(error)
                code = code or error.exit_code
    return code


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
    measured = measure_run(method, prepared.backbone, prepared.first_row, data, record.adapter_dir, config)
    with RunLock(record.folder):
        record.update(**{section: measured[section] for section in sections})
        log_measured(config, record)
