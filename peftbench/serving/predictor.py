"""A finished run's model that answers texts: what `peftbench.load` gives."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from weakref import finalize

import torch

from peftbench.backbones.economy.attach import attached, cheap_kernels
from peftbench.backbones.economy.first_row import reads_first_row
from peftbench.config.fill import fill
from peftbench.config.schema import TrainerConfig
from peftbench.config.task import fill_text_task
from peftbench.errors import UserError
from peftbench.runs.find import load_run
from peftbench.runs.record import Record
from peftbench.serving.load import RunModel, check_mergeable, describe_run, load_run_model
from peftbench.tasks.text.files import is_unicode
from peftbench.tasks.text.read import blank_task
from peftbench.tasks.text.task import TextSplit, TextTask
from peftbench.training.devices import use_device
from peftbench.training.inference import logits_of

Example = tuple[str, ...]


class Answer(NamedTuple):
    """What the model says of one example.

    Attributes:
        prediction: the class's name, or the score of a regression; None for an example without text.
        probabilities: of each class, by name; empty for a regression.
    """

    prediction: str | float | None
    probabilities: dict[str, float]


NO_ANSWER = Answer(None, {})


class Predictor:
    """A run's model, loaded once, for any number of calls.

    Threads may share one: their calls are answered one after the other. Processes each load their own.

    Attributes:
        labels: the classes' names in the order of their numbers; empty for a regression.
        columns: the names of the task's text columns, one or two.
        batch_size: rows in one forward pass.
    """

    def __init__(self, model: RunModel, batch_size: int, precision: str, merged: bool = False) -> None:
        self.labels: list[str] = list(model.description.labels)
        task = fill_text_task(model.description.task)
        self.columns: list[str] = task.text
        self.batch_size = batch_size
        self._task = blank_task(task, self.labels)
        self._model, self._precision = model, precision
        self._lock = Lock()
        model.method.detach()
        sites = model.backbone.sites
        if merged:
            check_mergeable(model.method.name)
        living = ExitStack()
        finalize(self, living.close)  # at the latest before the interpreter takes its modules apart
        living.enter_context(attached(sites, model.method, reads_first_row(sites), precision, merged))

    def predict(self, texts: Sequence[str] | Sequence[Sequence[str]]) -> list[Answer]:
        """Answer each example, in the order given.

        Args:
            texts: the examples: strings, or pairs of strings where the run's task is made of pairs. One in which a
                text is empty is answered with no prediction.

        Raises UserError for anything else.
        """
        examples = self._examples(texts)
        filled = [number for number, example in enumerate(examples) if all(example)]
        answers = [NO_ANSWER] * len(examples)
        if filled:
            with self._lock:
                found = self._answer([examples[number] for number in filled])
            for number, answer in zip(filled, found, strict=True):
                answers[number] = answer
        return answers

    def _answer(self, examples: Sequence[Example]) -> list[Answer]:
        backbone = self._model.backbone
        data = self._task.encode(TextSplit(examples), backbone.sites.tokenizer)
        device = backbone.sites.device
        with cheap_kernels(device):
            logits = logits_of(backbone.model, data, self.batch_size, self._precision, device)
        return read_answers(self._task, logits)

    def _examples(self, texts: Any) -> list[Example]:
        kind = examples_wanted(self.columns)
        if isinstance(texts, str):
            raise UserError(f"predict takes a list of {kind}, not one string: predict([…])")
        if not isinstance(texts, Iterable) or isinstance(texts, Mapping):
            raise UserError(f"predict takes a list of {kind}, not {type(texts).__name__}")
        examples: list[Example] = []
        for number, given in enumerate(texts):
            example = read_example(given, len(self.columns))
            if example is None:
                raise UserError(f"predict takes a list of {kind}; example {number} is {str(given)[:60]!r}")
            examples.append(example)
        return examples


def examples_wanted(columns: Sequence[str]) -> str:
    """Say what examples a task with these text columns takes."""
    return "texts" if len(columns) == 1 else f"pairs of texts ({', '.join(columns)})"


def read_example(given: Any, width: int) -> Example | None:
    """Return an example's `width` texts without the white space around them; None where it is something else."""
    example = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else ()
    texts_alone = all(isinstance(text, str) and is_unicode(text) for text in example)
    return tuple(text.strip() for text in example) if texts_alone and len(example) == width else None


def read_answers(task: TextTask, logits: torch.Tensor) -> list[Answer]:
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
    trainer = fill(TrainerConfig, record.config().get("trainer"), "trainer")
    model = load_run_model(record, chosen)
    return Predictor(model, batch_size or trainer.eval_batch_size, trainer.precision, merged)
