"""Tasks: read the splits of a data set, make batches of them, and score what a model says."""

from peftbench.tasks.base import Task
from peftbench.tasks.metrics import score
from peftbench.tasks.text.read import blank_task, load_task

__all__ = ["Task", "blank_task", "load_task", "score"]
