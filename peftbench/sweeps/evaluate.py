"""Score, behind all training, what the rows of a table show of their runs and no training left: merged, dropped."""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import nullcontext

from peftbench.errors import PeftbenchError
from peftbench.runs.record import Record
from peftbench.sweeps.measure import is_local
from peftbench.sweeps.request import TableRequest
from peftbench.tables.collect import NOT_EVALUATED, RunState, collect
from peftbench.terminal import console, print_error


def evaluate_rows(request: TableRequest) -> int:
    """Score each run in the ways that rows show it and its record has not; a model is loaded once for all drops.

    Returns 0, or the exit code of the first error.
    """
    from peftbench.serving.evaluate import score_run, store_scores

    lacking = [run for run in collect(request.planned, request.stale == "use") if run.status == NOT_EVALUATED]
    if lacking and not is_local(request):
        labels = ", ".join(dict.fromkeys(run.planned.label for run in lacking))
        console.print(f"not evaluated: {labels}; hydra/launcher=basic evaluates them on this machine")
        return 0
    code, printed = 0, set()
    for (record, split, merged, pruned), runs in _together(lacking).items():
        drop = keep = None
        if pruned:
            keep = _counts(run.planned.evaluation.kept_adapters or 0 for run in runs)
            left_out = f", {keep} adapters kept"
        elif any(run.planned.evaluation.dropped_layers for run in runs):
            drop = _counts(run.planned.evaluation.dropped_layers for run in runs)
            left_out = f", {drop} layers dropped"
        else:
            left_out = ""
        console.print(f"scoring {record.folder.name} on {split}{', merged' if merged else ''}{left_out}")
        config = runs[0].planned.config
        try:
            scored_runs = score_run(
                record,
                split,
                device=config["device"],
                task_dir=None if config["task"]["source"] == "local" else config["task"]["dir"],
                batch_size=config["trainer"]["eval_batch_size"],
                merged=merged,
                latency=False,
                labels_needed=True,
                working=lambda text: nullcontext(),
                drop=drop,
                keep=keep,
            )
            for scored in scored_runs:
                store_scores(record, scored)
        except PeftbenchError as error:
            if str(error) not in printed:
                print_error(error)
            printed.add(str(error))
            code = code or error.exit_code
    return code


def _counts(counts: Iterable[int]) -> str:
    """Return the numbers as `serving.leave_out` reads them."""
    return ",".join(map(str, sorted(set(counts))))


def _together(lacking: list[RunState]) -> dict[tuple[Record, str, bool, bool], list[RunState]]:
    """Return the runs by record, split, whether merged and whether pruned: what one loaded model can score."""
    together: dict[tuple[Record, str, bool, bool], list[RunState]] = defaultdict(list)
    for run in lacking:
        shown = run.planned.evaluation
        together[run.record, shown.split, shown.merged, shown.kept_adapters is not None].append(run)
    return together
