"""A finished run in a folder that another library reads, with a model card.

The folder is loaded by that library in a fresh process before it gets its name, and its answers are held against the
run's.
"""

import json
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peftbench.config.task import TaskConfig, TextTaskConfig, check_whole_answers, fill_task
from peftbench.errors import PeftbenchError, UserError
from peftbench.runs.record import Record
from peftbench.serving.certificate import Certificate, compare
from peftbench.serving.evaluate import read_task
from peftbench.serving.exchange.bring_in import read_folder, read_method
from peftbench.serving.load import RunModel, describe_run, load_run_model
from peftbench.serving.model_card import model_card
from peftbench.serving.targets import (
    TARGETS,
    Target,
    attention_needed,
    call_settings,
    environment_of,
    last_line,
    loading_lines,
)
from peftbench.tasks.base import Examples, Task
from peftbench.training.inference import logits_of

SPLIT = "validation"
_RELOAD = Path(__file__).with_name("reload.py")


def export_run(
    record: Record,
    folder: Path,
    to: str,
    task_dir: str | None,
    working: Callable[[str], AbstractContextManager[Any]],
) -> Certificate:
    """Write a run as a folder that another library reads.

    Args:
        record: of a finished run. folder: to be made, whole or not at all.
        to: which form, a key of `TARGETS`.
        task_dir: where the task's files lie now, None: where they lay.
        working: shows what is under way.

    Raises UserError where the run, its model or data cannot be had, the target cannot express its method, or the
    folder exists; PeftbenchError where what was written does not answer as the run does.
    """
    _check_new(folder)
    target = TARGETS[to]
    description = describe_run(record)
    target.check(str(description.method["name"]))
    _check_task(to, fill_task(description.task))
    task = read_task(description, SPLIT, task_dir)
    batch_size = record.trainer().eval_batch_size
    with working("loading the model"):
        model = load_run_model(record, torch.device("cpu"))
    _check_model(to, target, model)
    data = task.encode_split(SPLIT, model.backbone.sites)
    with working(f"answering {len(data):,} examples as the run"):
        run_logits = _answers(model, data, batch_size)
    processor = task.processor(model.backbone.sites)
    settings = {
        "batch_size": batch_size,
        "base": str(model.base),
        "outputs": task.objective.num_outputs,
        "attention": attention_needed(to, model.method.name),
        "call": call_settings(model, processor),
    }
    made = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    new_parents = [parent for parent in folder.parents if not parent.exists()]
    try:
        made.mkdir(parents=True)
        with working("writing the folder"):
            target.write(record.folder.name, model, processor, made)
        python = target.python()
        with working(f"answering {len(data):,} examples in {target.title if python else 'peftbench, read back'}"):
            if python:
                exported_logits, library = _reloaded(to, python, made, settings, task)
            else:
                exported_logits, library = _read_back(model, made, data, batch_size), None
        certificate = compare(run_logits, exported_logits, library)
        loading = loading_lines(to, folder.name, model, processor)
        card = model_card(record.read(), description, to, loading, certificate)
        (made / "README.md").write_text(card, encoding="utf-8")
        made.rename(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
        for parent in new_parents:
            with suppress(OSError):  # it holds what was exported
                parent.rmdir()
    return certificate


def _check_new(folder: Path) -> None:
    """Raise UserError where the folder exists, or where the system will not have one of its name."""
    try:
        exists = folder.exists()
    except OSError as error:
        raise _unwritable(folder, error) from error
    if exists:
        raise UserError(f"{folder} exists already: choose another --output, or remove it")


def _check_task(to: str, config: TaskConfig) -> None:
    """Raise UserError for a task whose answers the target's library has no model for."""
    check_whole_answers(config, "exported")
    if to == "adapters" and not isinstance(config, TextTaskConfig):
        raise UserError(
            f"--to adapters: task {config.name} is of {config.kind}; their runs are exported to peft, or merged"
        )


def _check_model(to: str, target: Target, model: RunModel) -> None:
    """Raise UserError where the target cannot express the model or its method's settings."""
    try:
        target.check_model(model)
    except UserError as error:
        raise UserError(f"--to {to}: {error}") from error


def _answers(model: RunModel, data: Examples, batch_size: int) -> np.ndarray:
    logits: np.ndarray = logits_of(model.backbone.model, data, batch_size, "fp32", model.backbone.sites.device).numpy()
    return logits


def _reloaded(to: str, python: str, folder: Path, settings: dict[str, Any], task: Task) -> tuple[np.ndarray, str]:
    """Return the logits that a fresh process gets from the folder, and what library loaded it there."""
    with tempfile.TemporaryDirectory() as temporary:
        given, logits = Path(temporary, "examples.json"), Path(temporary, "logits.npy")
        examples = task.write_examples(SPLIT, Path(temporary)) or {}
        given.write_text(json.dumps(settings | examples), encoding="utf-8")
        line = [python, str(_RELOAD), to, str(folder), str(given), str(logits)]
        ran = subprocess.run(line, env=environment_of(python), capture_output=True, text=True)
        if ran.returncode:
            raise PeftbenchError(f"{TARGETS[to].title} cannot load what was exported: {last_line(ran)}")
        found: np.ndarray = np.load(logits)
        return found, ran.stdout.strip().splitlines()[-1]


def _read_back(model: RunModel, folder: Path, data: Examples, batch_size: int) -> np.ndarray:
    """Return the logits of the method as the folder has it, on the same backbone; its head is filled anew too."""
    model.method.detach()
    method = read_method(read_folder(folder), model.backbone)
    with method.on(model.backbone.sites):
        return _answers(model, data, batch_size)


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {folder}: {error.strerror or error}; choose another --output")
