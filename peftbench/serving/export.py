"""A finished run as an ordinary transformers folder: the method in the weights, the head on top, and a model card.

The folder is loaded by plain transformers in a fresh process before it gets its name, and its answers are held
against the run's.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peftbench.backbones.load import quiet
from peftbench.config.schema import TrainerConfig, fill
from peftbench.errors import PeftbenchError, UserError
from peftbench.methods import METHODS, Method
from peftbench.runs.record import Record
from peftbench.serving.evaluate import read_task
from peftbench.serving.load import RunModel, describe_run, load_run_model
from peftbench.serving.model_card import model_card
from peftbench.training.inference import logits_of

SPLIT = "validation"
_RELOAD = Path(__file__).with_name("reload.py")
# of the largest logit: rounding, for the products are the same numbers in another order
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Certificate:
    """How an exported model's answers compare with its run's, both in fp32.

    Attributes:
        examples: of the validation split. largest_difference: of two logits.
        equal: how many examples get the same class; None for a regression.
    """

    examples: int
    largest_difference: float
    equal: int | None


def export_merged(
    record: Record, folder: Path, task_dir: str | None, working: Callable[[str], AbstractContextManager[Any]]
) -> Certificate:
    """Write a run as a folder that `AutoModelForSequenceClassification.from_pretrained` reads.

    Args:
        record: of a finished run. folder: to be made, whole or not at all.
        task_dir: where the task's files lie now, None: where they lay.
        working: shows what is under way.

    Raises UserError where the run, its model or data cannot be had, its method is none that weights can hold, or the
    folder exists; PeftbenchError where the written model does not answer as the run does.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already: choose another --output, or remove it")
    description = describe_run(record)
    _check_fits_into_weights(str(description.method["name"]))
    task = read_task(description, SPLIT, task_dir)
    trainer = fill(TrainerConfig, record.config().get("trainer"), "trainer")
    with working("loading the model"):
        model = load_run_model(record, torch.device("cpu"))
    backbone = model.backbone
    data = task.encode_split(SPLIT, backbone.sites.tokenizer)
    with working(f"answering {len(data):,} examples as the run"):
        ours = logits_of(backbone.model, data, trainer.eval_batch_size, "fp32", backbone.sites.device).numpy()
    examples = {
        "texts": task.splits[SPLIT].texts,
        "max_length": description.task["max_length"],
        "batch_size": trainer.eval_batch_size,
    }
    made = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        made.mkdir(parents=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        with working("writing the folder"):
            _write_merged(model, made)
        with working(f"answering {len(data):,} examples in plain transformers"):
            theirs = _reloaded(made, examples)
        certificate = _compared(ours, theirs)
        (made / "README.md").write_text(model_card(record.read(), description, certificate), encoding="utf-8")
        made.rename(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return certificate


def _check_fits_into_weights(name: str) -> None:
    """Raise UserError for a method that acts beside the weights."""
    fitting = [name for name, cls in METHODS.items() if cls.mergeable or cls.hook is Method.hook]
    if name not in fitting:
        raise UserError(
            f"--to merged: {name} acts beside the weights, and plain transformers has no place for it; what can be"
            f" exported so is {', '.join(sorted(fitting))}"
        )


def _write_merged(model: RunModel, folder: Path) -> None:
    if type(model.method).mergeable:
        model.method.merge()
    labels = model.description.labels
    headed: Any = model.backbone.model
    headed.config.architectures = [type(headed).__name__]
    if labels:
        headed.config.id2label = dict(enumerate(labels))
        headed.config.label2id = {label: number for number, label in enumerate(labels)}
    headed.config.problem_type = "single_label_classification" if labels else "regression"
    with quiet():
        headed.save_pretrained(folder)
    model.backbone.sites.tokenizer.save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):  # written as its owner's alone, unlike the rest
        weights.chmod((folder / "config.json").stat().st_mode)


def _reloaded(folder: Path, examples: dict[str, Any]) -> np.ndarray:
    """Return the logits that a fresh process gets from the folder."""
    with tempfile.TemporaryDirectory() as temporary:
        given, logits = Path(temporary, "examples.json"), Path(temporary, "logits.npy")
        given.write_text(json.dumps(examples), encoding="utf-8")
        line = [sys.executable, str(_RELOAD), str(folder), str(given), str(logits)]
        ran = subprocess.run(line, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
        if ran.returncode:
            reason = (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
            raise PeftbenchError(f"plain transformers cannot load what was exported: {reason}")
        found: np.ndarray = np.load(logits)
        return found


def _compared(ours: np.ndarray, theirs: np.ndarray) -> Certificate:
    largest = float(np.abs(ours - theirs).max())
    if not largest <= _TOLERANCE * max(1.0, float(np.abs(ours).max())):
        raise PeftbenchError(
            f"the exported model does not answer as the run does: logits differ by up to {largest:.2g}; nothing is kept"
        )
    equal = int((ours.argmax(1) == theirs.argmax(1)).sum()) if ours.shape[1] > 1 else None
    return Certificate(len(ours), largest, equal)


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {folder}: {error.strerror or error}; choose another --output")
