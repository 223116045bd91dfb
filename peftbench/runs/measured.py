"""Measure a trained run and put what was found into its record, section by section, each with its own error."""

import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace

from peftbench.config.schema import MeasureConfig, RunConfig, resolve
from peftbench.errors import PeftbenchError, UserError, first_line
from peftbench.measuring.latency import fitting_sizes, measure_latency
from peftbench.measuring.run import measure_section
from peftbench.methods.parts import PartsMethod
from peftbench.out_of_memory import is_out_of_memory
from peftbench.runs.adapter import load_adapter
from peftbench.runs.failure import add_to_log
from peftbench.runs.lock import RunLock
from peftbench.runs.prepare import Prepared, prepare
from peftbench.runs.record import Record
from peftbench.runs.result import SECTIONS, Evaluation, Result, Section
from peftbench.terminal import working


def sections_to_measure(asked: MeasureConfig, result: Result | None = None) -> list[str]:
    """Return the sections that are asked for and that the result, if there is one, has no figures of."""
    return [name for name in SECTIONS if getattr(asked, name) and not (result and _has_figures(result.section(name)))]


def _has_figures(section: Section) -> bool:
    # former versions recorded a latency of no setting where no length fitted the model
    return section.result is not None and section.result.get("settings") != []


def check_sections(names: Iterable[str], prepared: Prepared, config: RunConfig) -> None:
    """Raise UserError where a section cannot be measured as `config` says, before anything is trained for it."""
    if "latency" in names:
        sizes = prepared.splits["train"].timed_sizes(config.measure.lengths)
        fitting_sizes(sizes, prepared.method, prepared.backbone)


def measure_sections(names: Iterable[str], prepared: Prepared, config: RunConfig, record: Record) -> list[str]:
    """Measure a trained run and write each section as soon as it is there; return the errors, a line each.

    Args:
        names: out of `SECTIONS`, measured in their order.
        prepared: with the method trained and the backbone on the device.
        config: of the run; its `measure` says how long and at which sizes.
        record: of the finished run, its lock held.
    """
    errors = []
    for name in sorted(names, key=SECTIONS.index):
        try:
            with working(f"measuring the {name.replace('_', ' ')}"):
                figures = measure_section(
                    name,
                    prepared.method,
                    prepared.backbone,
                    prepared.reads_first_token_only,
                    prepared.splits["train"],
                    prepared.task.objective.loss,
                    record.adapter_dir,
                    load_adapter,
                    config,
                )
            section = Section(figures)
        except Exception as error:
            reason = _reason(error)
            section = Section(error=reason)
            errors.append(f"{name.replace('_', ' ')} could not be measured: {reason}")
            add_to_log(record, traceback.format_exc())
        record.update(**{name: section})
    return errors


def measure_finished(
    record: Record, names: Iterable[str], log: Callable[[RunConfig, Record], None], config: RunConfig | None = None
) -> None:
    """Measure sections of a finished run with its trained adapter, without training, and put them into its record.

    Args:
        record: of the run.
        names: out of `SECTIONS`.
        log: is given config and record at the end, to log what was measured elsewhere too.
        config: says how to measure; the record's own by default.

    Raises PeftbenchError where a section could not be measured; the record has the others.
    """
    config = config or resolve(record.config())
    with RunLock(record.folder):
        prepared = _prepare_trained(record, config)
        check_sections(names, prepared, config)
        errors = measure_sections(names, prepared, config, record)
        log(config, record)
    if errors:
        raise PeftbenchError(f"{record.folder.name}: {'; '.join(errors)} (see {record.log_path})")


def measure_reduced(record: Record, evaluation: Evaluation) -> None:
    """Measure a finished run's latency with the layers or adapters left out that an evaluation of it left out.

    It is put into all evaluations of the record with the same left out, in the run's own precision. Raises
    PeftbenchError where it cannot be measured.
    """
    config = resolve(record.config())
    with RunLock(record.folder):
        prepared = _prepare_trained(record, config)
        method, precision = prepared.method, config.trainer.precision
        method.drop(range(evaluation.dropped_layers))
        if evaluation.kept_adapters and isinstance(method, PartsMethod) and evaluation.observed:
            method.prune(evaluation.kept_adapters, evaluation.observed)  # where those that were pruned weigh nothing
        sizes = prepared.splits["train"].timed_sizes(config.measure.lengths)
        try:
            figures = measure_latency(method, prepared.backbone, config.measure, precision, sizes)
        except Exception as error:
            add_to_log(record, traceback.format_exc())
            what = f"latency with {' and '.join(evaluation.left_out)}"
            raise PeftbenchError(f"{record.folder.name}: {what} could not be measured: {_reason(error)}") from error
        finally:
            method.detach()  # the next run takes the backbone over
        evaluations = [
            replace(known, latency=figures)
            if known.precision == precision and known.left_out == evaluation.left_out
            else known
            for known in record.read().evaluations
        ]
        record.update(evaluations=evaluations)


def _prepare_trained(record: Record, config: RunConfig) -> Prepared:
    """Return a finished run as it is prepared for training, with its trained method attached."""
    prepared = prepare(config, reuse=True, with_parts=False)
    prepared.backbone.model.to(prepared.device)
    record.check([record.adapter_dir.name])
    origin = record.read().origin
    if origin and origin.weights not in (None, prepared.origin.weights):
        raise UserError(f"{record.folder.name} was trained on other weights than {config.model.name} has now")
    return replace(prepared, method=load_adapter(record.adapter_dir, prepared.backbone))


def _reason(error: Exception) -> str:
    return "out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {first_line(error)}"
