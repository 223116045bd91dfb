"""A run of several processes, as torchrun begins them: the first one executes it, the others help it train."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from peftbench.config.schema import RunConfig
from peftbench.errors import PeftbenchError, UserError, first_line
from peftbench.terminal import print_error
from peftbench.training.torchrun import launched_workers, leads

if TYPE_CHECKING:
    from peftbench.training.parallel import Workers


def execute_or_help(config: RunConfig, execute: Callable[[], Any]) -> None:
    """Call `execute`, which trains the run of `config`; where torchrun began several processes, only the first does.

    Raises UserError for a batch that cannot be divided among the processes, and for a GPU that all would share. An
    error of a process that helps is the first one's, of the same kind; it says so itself in one line.
    """
    count = launched_workers()
    if count == 1:
        execute()
        return
    from peftbench.training.ending import EndedElsewhereError
    from peftbench.training.parallel import joined_workers

    if config.trainer.batch_size < count:
        raise UserError(
            f"trainer.batch_size={config.trainer.batch_size}, the size of a batch of all processes together, cannot be"
            f" divided among {count}: set torchrun --nproc-per-node to less"
        )
    if config.device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={config.device}: under torchrun each process takes its GPU with device=auto")
    if leads():
        with joined_workers():
            execute()
        return
    try:
        with joined_workers() as workers:
            _help(workers)
    except EndedElsewhereError:
        return
    except Exception as error:
        known = isinstance(error, PeftbenchError)
        failure = error if known else PeftbenchError(f"{type(error).__name__}: {first_line(error)}")
        print_error(f"process {os.environ['RANK']} of {count}: {failure}")
        raise failure from error


def _help(workers: "Workers") -> None:
    """Train as the first process says, with no record, lock or output of its own."""
    from peftbench.runs.attached import attached_for_training
    from peftbench.runs.prepare import prepare
    from peftbench.training.loop import fit
    from peftbench.training.parallel import next_config

    config: Any = next_config()
    if config is None:
        return
    prepared = prepare(config, reuse=True)
    prepared.backbone.model.to(prepared.device)
    prepared.method.to(prepared.device)
    with attached_for_training(prepared, config.trainer) as splits:
        fit(
            model=prepared.backbone.model,
            trained=prepared.trained,
            data=splits["train"],
            loss=prepared.task.objective.loss,
            evaluate=dict,
            primary=prepared.task.metrics[0],
            config=config.trainer,
            seed=config.seed_for("order"),
            dropout_seed=config.seed_for("dropout"),
            device=prepared.device,
            workers=workers,
            redraw=prepared.redraw,
            penalty=prepared.method.penalty,
        )
