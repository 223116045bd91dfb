"""Tasks: read the splits of a data set, and score predictions."""

from peftbench.tasks.metrics import score
from peftbench.tasks.text.read import Split, Task, load_task

__all__ = ["Split", "Task", "load_task", "score"]
