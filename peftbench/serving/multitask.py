"""Several trained tasks on one backbone: a batch in which each text has a task of its own is answered in one pass."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from peftbench.backbones.heads import add_head
from peftbench.backbones.load import Backbone
from peftbench.errors import UserError
from peftbench.runs.find import load_run
from peftbench.runs.record import Record
from peftbench.serving.batch_mode import BatchMode
from peftbench.serving.load import load_run_backbone
from peftbench.serving.mixing import mixer
from peftbench.serving.passes import mixed_logits, passes, stretches
from peftbench.serving.predictor import NO_ANSWER, Answer, read_answers
from peftbench.serving.task_names import no_task, shortened
from peftbench.serving.task_tensors import RegisteredTask, TaskTensors, read_recorded
from peftbench.tasks.text.batching import EncodedTexts, encode, joined
from peftbench.tasks.text.examples import Example, examples_wanted, read_example
from peftbench.training.devices import padding_multiple, use_device

_MIB = 2**20
BATCH_SIZE = 64
MEMORY_MIB = 1024


class MultiTask:
    """Trained runs by the names of their tasks, on one backbone that none of them changes.

    Every call names the task of each text. Threads may share one object: their calls are answered one after the other.

    Attributes:
        batch_size: rows in one pass.
        tasks: the registered names, in order.
    """

    def __init__(
        self,
        runs: Mapping[str, str | Path | Record] | None = None,
        output_dir: str | Path = "outputs",
        *,
        device: str = "auto",
        precision: str | None = None,
        batch_size: int = BATCH_SIZE,
        memory_mib: int = MEMORY_MIB,
    ) -> None:
        """Register runs, or none yet.

        Args:
            runs: by the names of their tasks; each a folder, an id, the start of an id, or a hash.
            output_dir: where the records lie.
            device: auto (CUDA where there is one), cpu, cuda or cuda:N.
            precision: fp32 or bf16; None is that of the runs, which must be the same for all.
            batch_size: rows in one pass.
            memory_mib: for the tasks' tensors; the least recently used are dropped, and read again when needed.

        Raises UserError as `register` does.
        """
        for name, value in (("batch_size", batch_size), ("memory_mib", memory_mib)):
            if value < 1:
                raise UserError(f"{name}={value} must be 1 or more")
        if precision not in (None, "fp32", "bf16"):
            raise UserError(f"precision={precision} is unknown: choose fp32 or bf16")
        self.batch_size = batch_size
        self._output_dir = Path(output_dir)
        self._device, self._precision, self._memory = use_device(device), precision, memory_mib * _MIB
        self._tasks: dict[str, RegisteredTask] = {}
        self._backbone: Backbone | None = None
        self._tensors: TaskTensors | None = None
        self._lock = Lock()
        for name, run in (runs or {}).items():
            self.register(name, run)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The registered names, in order."""
        return tuple(self._tasks)

    def labels(self, task: str) -> tuple[str, ...]:
        """Return the names of a task's classes in the order of their numbers; empty for a regression."""
        return self._registered(task).task.labels

    def register(self, name: str, run: str | Path | Record) -> None:
        """Add a finished run under a name; the first one brings the backbone, tensors are read when they are needed.

        Args:
            name: by which texts are sent to it.
            run: its folder, its id, the start of the id, or its hash.

        Raises UserError for a name that is taken, a run that is not there, has not finished or is damaged, and one of
        another backbone, or precision, than those registered.
        """
        record = run if isinstance(run, Record) else load_run(str(run), self._output_dir)
        with self._lock:
            if not name or name in self._tasks:
                raise UserError(f"task {name!r} is registered already" if name else "a task needs a name")
            task = RegisteredTask(name, record)
            first = next(iter(self._tasks.values()), None)
            if first is None:
                self._backbone, _, _ = load_run_backbone(record, task.description)
                self._backbone.encoder.to(self._device)
            else:
                self._check_shared(task, first)
            self._tasks[name] = task
            if self._tensors and task.outputs > self._tensors.outputs:
                self._tensors = None  # made anew under a wider head

    def predict(self, texts: Iterable[Any], tasks: str | Iterable[str]) -> list[Answer]:
        """Answer each text by its task, in the order given.

        Args:
            texts: strings, or pairs of strings where the task is made of pairs. One in which a text is empty is
                answered with no prediction.
            tasks: the name of each text's task, or one for all.

        Raises UserError as `examples` does.
        """
        given = texts if isinstance(texts, str) else list(texts)
        names = [tasks] * len(given) if isinstance(tasks, str) else list(tasks)
        examples = self.examples(given, names)
        filled = [number for number, example in enumerate(examples) if all(example)]
        answers = [NO_ANSWER] * len(examples)
        if filled:
            with self._lock:
                found = self._answer([examples[n] for n in filled], [self._tasks[names[n]] for n in filled])
            for number, answer in zip(filled, found, strict=True):
                answers[number] = answer
        return answers

    def examples(self, texts: Sequence[Any], tasks: Sequence[str]) -> list[Example]:
        """Return the texts of each example without the white space around them; `predict` takes these as well.

        Raises UserError for a task that is not registered, and for what is no example of its task.
        """
        if isinstance(texts, str):
            raise UserError("predict takes a list of texts, not one string: predict([…], …)")
        if len(tasks) != len(texts):
            raise UserError(f"predict takes the name of a task for each text: {len(texts)} texts, {len(tasks)} names")
        return [self._example(number, *both) for number, both in enumerate(zip(texts, tasks, strict=True))]

    def ways(self) -> dict[str, BatchMode]:
        """Return how each task shares a pass with others: stacked, sliced or alone."""
        with self._lock:
            return {name: self._made().prototype(task).mode for name, task in self._tasks.items()}

    # registering ----------------------------------------------------------------------------------------

    def _registered(self, name: Any) -> RegisteredTask:
        if not isinstance(name, str) or name not in self._tasks:
            raise UserError(no_task(name, self._tasks))
        return self._tasks[name]

    def _check_shared(self, task: RegisteredTask, first: RegisteredTask) -> None:
        """Raise UserError where a run cannot share a pass with the first one."""
        run, other = task.record.folder.name, first.record.folder.name
        if task.backbone != first.backbone:
            raise UserError(
                f"run {run} was trained on another backbone ({task.model}) than {other} ({first.model}):"
                " register runs of one"
            )
        if self._precision is None and task.precision != first.precision:
            raise UserError(
                f"run {run} was trained in {task.precision} and {other} in {first.precision}: say in which precision"
                " all are to answer"
            )

    # answering --------------------------------------------------------------------------------------------

    def _example(self, number: int, text: Any, name: Any) -> Example:
        columns = self._registered(name).columns
        example = read_example(text, len(columns))
        if example is None:
            raise UserError(
                f"task {name} takes {examples_wanted(columns)}; example {number} is {shortened(str(text))!r}"
            )
        return example

    def _answer(self, examples: Sequence[Example], tasks: Sequence[RegisteredTask]) -> list[Answer]:
        data, made = self._encoded(examples, tasks), self._made()
        answers: list[Answer] = [NO_ANSWER] * len(tasks)
        multiple = padding_multiple(made.mixer.precision, self._device)
        for indices, padded_to in passes(data, tasks, made, self.batch_size, multiple):
            parts = [tasks[index] for index in indices]
            logits = mixed_logits(made, data.batch(indices, padded_to), parts)
            for start, stop, task in stretches(parts):
                found = read_answers(task.task, logits[start:stop, : task.outputs])
                for index, answer in zip(indices[start:stop], found, strict=True):
                    answers[index] = answer
        return answers

    def _encoded(self, examples: Sequence[Example], tasks: Sequence[RegisteredTask]) -> EncodedTexts:
        """Tokenize all examples, in their order."""
        assert self._backbone is not None
        together: dict[tuple[int, int], list[int]] = {}
        for index, task in enumerate(tasks):
            together.setdefault((task.task.max_length, len(task.columns)), []).append(index)
        tokenizer = self._backbone.sites.processor
        parts = [
            encode([examples[index] for index in indices], None, tokenizer, max_length)
            for (max_length, _), indices in together.items()
        ]
        order = np.argsort([index for indices in together.values() for index in indices])
        return joined(parts, self._backbone.sites.positions).subset(order.tolist())

    @torch.inference_mode(False)
    def _made(self) -> TaskTensors:
        """Return what holds the tensors, for a backbone under a head as wide as the widest registered."""
        if self._tensors is None:
            assert self._backbone is not None
            tasks = self._tasks.values()
            headed = add_head(self._backbone, max(task.outputs for task in tasks))
            headed.model.to(self._device).requires_grad_(False)
            precision = self._precision or next(iter(tasks)).precision
            self._tensors = TaskTensors(mixer(headed, precision), self._memory, read_recorded)
        return self._tensors
