"""Which rows share a forward pass of the backbone, and which method and head act on each of them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch

from peftbench.backbones.rows import Rows
from peftbench.errors import NonFiniteError
from peftbench.methods import Method
from peftbench.serving.batch_mode import BatchMode
from peftbench.serving.mixing import Tensors
from peftbench.serving.task_tensors import RegisteredTask, TaskTensors
from peftbench.tasks.base import Batch, Examples
from peftbench.tasks.text.batching import rounded_up


def passes(
    data: Examples, tasks: Sequence[RegisteredTask], tensors: TaskTensors, batch_size: int, multiple: int
) -> Iterator[tuple[list[int], int]]:
    """Yield the indices of the rows of each pass: of similar length, rows of one task side by side.

    With them comes the multiple that their length is padded up to, 1 where a method leaves no room for padding.

    A pass ends where the tensors of its tasks would take more memory than they may.

    Args:
        data: the rows. tasks: the task of each row. tensors: say which tasks can share a pass.
        batch_size: rows in one pass, at most. multiple: that lengths are padded up to.
    """

    def padded(indices: Sequence[int]) -> int:
        longest = max(int(data.sizes[index]) for index in indices)
        return rounded_up(longest, multiple, tensors.backbone.sites.positions)

    for indices in data.in_order(batch_size):
        length = padded(indices)
        shared: list[int] = []
        held = 0
        for _, rows in groupby(_grouped(indices, tasks), key=lambda index: tasks[index].name):
            task_rows = list(rows)
            task = tasks[task_rows[0]]
            if not tensors.shares(task, length):
                yield task_rows, multiple if tensors.fits(task, padded(task_rows)) else 1
                continue
            if shared and held + tensors.size_of(task) > tensors.pass_limit:
                yield shared, multiple
                shared, held = [], 0
            shared += task_rows
            held += tensors.size_of(task)
        if shared:
            yield shared, multiple


def _grouped(indices: Sequence[int], tasks: Sequence[RegisteredTask]) -> list[int]:
    """Return the indices with those of one task side by side, next to tasks of the same method with as many rows."""
    counts = Counter(tasks[index].name for index in indices)
    return sorted(indices, key=lambda index: (tasks[index].method_key, counts[tasks[index].name], tasks[index].name))


def mixed_logits(tensors: TaskTensors, batch: Batch, tasks: Sequence[RegisteredTask]) -> torch.Tensor:
    """Return the logits of one pass, (rows, outputs of the widest head), float32 on the CPU.

    Args:
        batch: of rows in the order of `passes`, and `tasks` the task of each.

    Raises NonFiniteError where one is NaN or infinite.
    """
    loaded = {task.name: tensors.load(task) for *_, task in stretches(tasks)}
    methods: list[tuple[Method, Rows]] = []
    heads: list[tuple[Tensors, Rows]] = []
    for size, same_size in groupby(stretches(tasks), key=lambda stretch: stretch[1] - stretch[0]):
        group = list(same_size)
        heads.append(
            (tensors.head([task for *_, task in group], loaded), Rows(len(tasks), group[0][0], size, len(group)))
        )
        for _, same_method in groupby(group, key=lambda stretch: stretch[2].method_key):
            alike = list(same_method)
            step = len(alike) if tensors.prototype(alike[0][2]).mode == BatchMode.STACKED else 1
            for first in range(0, len(alike), step):
                part = alike[first : first + step]
                method = tensors.method([task for *_, task in part], loaded)
                methods.append((method, Rows(len(tasks), part[0][0], size, len(part))))
    device = tensors.backbone.sites.device
    lowest = min(tensors.prototype(task).first_layer for task in tasks)
    different, rows = _different(batch) if lowest and tensors.shares_layers else (batch, None)
    repeated = None if rows is None else (lowest, rows.to(device))
    on_device = {name: column.to(device) for name, column in different.items()}
    logits = tensors.mixer.logits(on_device, methods, heads, repeated).cpu()
    if not logits.isfinite().all():
        raise NonFiniteError("the model's outputs are not finite (NaN or infinite)")
    return logits


def _different(batch: Batch) -> tuple[Batch, torch.Tensor | None]:
    """Return the batch without repeated rows, and for each row its place among them, (rows,); None where all differ."""
    together = torch.cat(list(batch.values()), dim=1)
    found, rows = torch.unique(together, dim=0, return_inverse=True)
    if len(found) == len(together):
        return batch, None
    columns = found.split([column.shape[1] for column in batch.values()], dim=1)
    return dict(zip(batch, columns, strict=True)), rows


def stretches(tasks: Sequence[RegisteredTask]) -> Iterator[tuple[int, int, RegisteredTask]]:
    """Yield (start, stop, task) for each run of neighbouring rows of one task: rows `start` up to, not with, `stop`."""
    start = 0
    for _, rows in groupby(tasks, key=lambda task: task.name):
        same = list(rows)
        yield start, start + len(same), same[0]
        start += len(same)
