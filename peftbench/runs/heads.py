"""The head that a run's method and task put on a backbone."""

from collections.abc import Sequence
from typing import Any

from peftbench.backbones.dense_heads import add_dense_head
from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.load import Backbone
from peftbench.config.task import DenseTaskConfig, TaskConfig
from peftbench.errors import UserError
from peftbench.methods import Method


def put_head(
    kind: type[Method], config: Any, backbone: Backbone, labels: Sequence[str], task: TaskConfig
) -> HeadedBackbone:
    """Put the task's own head on a backbone where it has one, else the one through which the method answers.

    Args:
        kind, config: of the method. labels: names of the classes. task: of the run.

    Raises UserError where the method answers with words and the task at every place of a picture.
    """
    if not isinstance(task, DenseTaskConfig):
        return kind.put_head(config, backbone, labels, task.texts)
    if not kind.makes_pyramid and not puts_classifier(kind):
        raise UserError(
            f"method={kind.name} answers with its own head, which says nothing of places in a picture: choose another"
            f" method for task {task.name}"
        )
    return add_dense_head(backbone, task.head, len(labels), task.head_layers, kind.makes_pyramid)


def puts_classifier(kind: type[Method]) -> bool:
    """Tell whether a method answers through a new classifier, as most do, and not through a head of its own."""
    return kind.put_head.__func__ is Method.put_head.__func__  # type: ignore[attr-defined]
