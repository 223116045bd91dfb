"""From a config to an image task: its splits, and the classes of their images as numbers."""

from collections.abc import Sequence

from peftbench.config.task import ImageTaskConfig
from peftbench.errors import UserError, nearest
from peftbench.tasks.classification import Classification
from peftbench.tasks.image.sources import Images, open_source
from peftbench.tasks.image.task import ImageSplit, ImageTask
from peftbench.tasks.metrics import CORRELATIONS, check_metrics
from peftbench.tasks.shares import REST
from peftbench.tasks.splits import check_names, chosen_splits, read_parts


def load_task(config: ImageTaskConfig, splits: Sequence[str] | None = None) -> ImageTask:
    """Read a task's splits; the images themselves are opened when they are encoded.

    Args:
        config: where the images come from.
        splits: names, all of which must be there; by default train, validation and, where there is one, test.

    Raises UserError where the images cannot be had; one line that says where and what to do.
    """
    check_metrics(config.metrics)
    if wrong := [name for name in config.metrics if name in CORRELATIONS]:
        raise UserError(f"task {config.name}: its labels are classes, which {wrong[0]} cannot judge; set task.metrics")
    check_names(config, splits)
    source = open_source(config)
    read = read_parts(config, splits, source.read)
    labels = tuple(config.labels) or _classes(config, read[REST] if REST in read else source.read(REST))
    if len(labels) < 2:
        raise UserError(f"task {config.name}: all training images are of class {labels[0]}: there is nothing to learn")
    parsed = {name: _split(config, images, labels) for name, images in read.items()}
    chosen = chosen_splits(config, splits, parsed, _strata)
    return _task(config, labels, chosen, source.description)


def _strata(split: ImageSplit) -> Sequence[int]:
    if split.labels is None:
        raise UserError("a share of the training images needs their classes, which are all hidden (-1)")
    return split.labels


def blank_task(config: ImageTaskConfig, labels: Sequence[str]) -> ImageTask:
    """Return a task without data, for images that come from elsewhere; `labels` are the class names by index."""
    return _task(config, tuple(labels), {}, "")


def _task(config: ImageTaskConfig, labels: tuple[str, ...], splits: dict[str, ImageSplit], source: str) -> ImageTask:
    size = tuple(config.image_size) if isinstance(config.image_size, list) else config.image_size
    objective = Classification(labels)
    metrics, augment = tuple(config.metrics), tuple(config.augment)
    return ImageTask(config.name, objective, labels, metrics, splits, source, ("image",), size, augment)


def _classes(config: ImageTaskConfig, train: Images) -> tuple[str, ...]:
    if train.classes is None:
        raise UserError(f"task {config.name}: the classes of its training images are all hidden (-1)")
    return tuple(sorted({*train.classes}))


def _split(config: ImageTaskConfig, images: Images, labels: Sequence[str]) -> ImageSplit:
    if images.classes is None:
        return ImageSplit(images.images, images.names)
    index = {label: number for number, label in enumerate(labels)}
    for name, label in zip(images.names, images.classes, strict=True):
        if label not in index:
            raise UserError(f"task {config.name}: no class {label!r}, of which {name} is. {nearest(label, labels)}")
    return ImageSplit(images.images, images.names, [index[label] for label in images.classes])
