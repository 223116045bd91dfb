"""A finished run's model that answers texts or images: what `peftbench.load` gives."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from weakref import finalize

import torch

from peftbench.backbones.economy.attach import attached, cheap_kernels
from peftbench.backbones.economy.first_token import head_reads_first_token
from peftbench.config.task import fill_task
from peftbench.errors import UserError
from peftbench.runs.find import load_run
from peftbench.runs.record import Record
from peftbench.serving.load import RunModel, check_mergeable, describe_run, load_run_model
from peftbench.tasks.base import Task
from peftbench.tasks.kinds import blank_task
from peftbench.training.devices import use_device
from peftbench.training.inference import logits_of


class Answer(NamedTuple):
    """What the model says of one example.

    Attributes:
        prediction: the class's name, or the score of a regression; None for an example without text. Of a picture, its
            mask, (height, width) of class numbers, or its boxes (`tasks.detection.read.Box`), the surest first.
        probabilities: of each class, by name; empty for a regression, masks and boxes.
    """

    prediction: Any
    probabilities: dict[str, float]


NO_ANSWER = Answer(None, {})


class Predictor:
    """A run's model, loaded once, for any number of calls.

    Threads may share one: their calls are answered one after the other. Processes each load their own.

    Attributes:
        labels: the classes' names in the order of their numbers; empty for a regression.
        columns: what an example consists of: the names of one or two columns of text, or `image`.
        batch_size: rows in one forward pass.
    """

    def __init__(self, model: RunModel, batch_size: int, precision: str, merged: bool = False) -> None:
        self.labels: list[str] = list(model.description.labels)
        self.batch_size = batch_size
        self._task = blank_task(fill_task(model.description.task), self.labels)
        self.columns = list(self._task.columns)
        self._model, self._precision = model, precision
        self._lock = Lock()
        model.method.detach()
        sites = model.backbone.sites
        if merged:
            check_mergeable(model.method.name)
        living = ExitStack()
        finalize(self, living.close)  # at the latest before the interpreter takes its modules apart
        living.enter_context(attached(sites, model.method, head_reads_first_token(sites), precision, merged))

    def predict(self, examples: Sequence[Any]) -> list[Answer]:
        """Answer each example, in the order given.

        Args:
            examples: what the run's task is made of: strings, pairs of strings, or images (files, or PIL's). A text
                that is empty is answered with no prediction.

        Raises UserError for anything else.
        """
        given = self._task.read_examples(examples)
        answers = [NO_ANSWER] * given.count
        if given.filled:
            with self._lock:
                found = self._answer(given.split)
            for number, answer in zip(given.filled, found, strict=True):
                answers[number] = answer
        return answers

    def _answer(self, split: Any) -> list[Answer]:
        backbone = self._model.backbone
        data = self._task.encode(split, backbone.sites)
        device = backbone.sites.device
        with cheap_kernels(device):
            logits = logits_of(backbone.model, data, self.batch_size, self._precision, device)
        if self._task.objective.form == "one":
            return read_answers(self._task, logits)
        found, _ = self._task.objective.read_out(logits)
        return [Answer(answer, {}) for answer in self._task.answers_in_given_size(split, found)]


def read_answers(task: Task, logits: torch.Tensor) -> list[Answer]:
    """Return what a task's logits, (examples, outputs), say of each example."""
    predictions, probabilities = task.objective.read_out(logits)
    if probabilities is None:
        return [Answer(float(score), {}) for score in predictions]
    return [
        Answer(task.labels[index], dict(zip(task.labels, map(float, row), strict=True)))
        for index, row in zip(predictions, probabilities, strict=True)
    ]


def load_predictor(
    run: str | Path | Record, output_dir: str | Path, device: str, merged: bool, batch_size: int | None
) -> Predictor:
    """Load a finished run; see `peftbench.load`."""
    record = run if isinstance(run, Record) else load_run(str(run), Path(output_dir))
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size={batch_size} must be 1 or more")
    chosen = use_device(device)
    if merged:
        check_mergeable(describe_run(record).method["name"])
    trainer = record.trainer()
    model = load_run_model(record, chosen)
    return Predictor(model, batch_size or trainer.eval_batch_size, trainer.precision, merged)
