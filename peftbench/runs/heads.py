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
    method_cls: type[Method], config: Any, backbone: Backbone, labels: Sequence[str], task: TaskConfig
) -> HeadedBackbone:
    """Put the task's own head on a backbone where it has one, else the one through which the method answers.

    Args:
        method_cls, config: class and settings of the method. labels: names of the classes. task: of the run.

    Raises UserError where the method answers with words and the task at every place of a picture.
    """
    if not isinstance(task, DenseTaskConfig):
        return method_cls.put_head(config, backbone, labels, task.texts_per_example)
    if not method_cls.makes_pyramid and not puts_classifier(method_cls):
        raise UserError(
            f"method={method_cls.name} answers with its own head, which says nothing of places in a picture: choose"
            f" another method for task {task.name}"
        )
    return add_dense_head(backbone, task.head, len(labels), task.head_layers, method_cls.makes_pyramid)


def puts_classifier(method_cls: type[Method]) -> bool:
    """Tell whether a method answers through a new classifier, as most do, and not through a head of its own."""
    return method_cls.put_head.__func__ is Method.put_head.__func__  # type: ignore[attr-defined]
