"""`peftbench predict --runs`: several runs of one backbone answer a file together."""

import argparse
from pathlib import Path

from peftbench.commands.predict import answered, check_output, report_blank, show, through_first_text
from peftbench.commands.run_options import find_task_runs, records_dir, working_on_stderr
from peftbench.config.task import fill_text_task
from peftbench.errors import UserError
from peftbench.files import is_there
from peftbench.serving.inputs import TABLES, InputRow, read_task_input

_PASSES_AT_ONCE = 16  # rows of like length share a pass


def predict_tasks(arguments: argparse.Namespace) -> int:
    """Print an answer for each row of the file, in order; returns the exit code.

    Raises UserError where a run cannot be had or shares no backbone with the others, and for a row of no task.
    """
    names, file = _runs_and_file(arguments)
    arguments.file = file
    check_output(arguments)
    if arguments.merged:
        raise UserError("--merged: several runs share the backbone's weights, which stay as they are")
    records = find_task_runs(names, records_dir(arguments))

    from peftbench.serving.load import describe_run
    from peftbench.serving.multitask import BATCH_SIZE, MultiTask
    from peftbench.serving.predictor import NO_ANSWER, Answer
    from peftbench.training.devices import choose_device

    choose_device(arguments.device)  # a mistake shows before anything is loaded
    columns = {name: fill_text_task(describe_run(record).task).text for name, record in records.items()}
    header, rows = read_task_input(file, columns)
    rows = through_first_text(rows)
    with working_on_stderr("loading the model"):
        size = arguments.batch_size or BATCH_SIZE
        tasks = MultiTask(records, device=arguments.device, precision=arguments.precision, batch_size=size)

    def predict(batch: list[InputRow]) -> list[Answer]:
        asked = [(row.texts, row.task) for row in batch if row.task is not None]
        answers = iter(tasks.predict([texts for texts, _ in asked], [task for _, task in asked]))
        return [NO_ANSWER if row.task is None else next(answers) for row in batch]

    blank: list[int] = []
    batches = answered(predict, rows, size * _PASSES_AT_ONCE, blank)
    widest = max(columns.values(), key=len)
    show(arguments, batches, header, ["text", "text 2"][: len(widest)], None)
    report_blank(blank)
    return 0


def _runs_and_file(arguments: argparse.Namespace) -> tuple[list[str], Path]:
    """Tell the file from the runs, which may stand in front of it or behind."""
    names: list[str] = arguments.runs
    files = [word for word in [arguments.run, *arguments.texts] if word is not None]
    if "=" not in names[-1] or _is_table(Path(names[-1])):
        files.append(names[-1])
        names = names[:-1]
    if arguments.file is not None:
        files.append(str(arguments.file))
    usage = "peftbench predict --runs TASK=RUN TASK=RUN FILE"
    if len(files) != 1:
        raise UserError(
            f"--runs takes one file with a column `task`: {usage}, not {' and '.join(files) if files else 'none'}"
        )
    if not names:
        raise UserError(f"--runs names no run, only the file {files[0]}: {usage}")
    return names, Path(files[0])


def _is_table(path: Path) -> bool:
    """Tell whether it is a file of rows, whose name may have a `=` as a run's word has."""
    return path.suffix.lower() in TABLES and is_there(path, Path.is_file)
