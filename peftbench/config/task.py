"""What a config says of a task: where its data comes from, and what is learned from it, by the kind of data."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from peftbench.config.asset import AssetConfig, absolute
from peftbench.config.fill import as_group, fill
from peftbench.config.ranges import at_least, one_of
from peftbench.config.sources import check_source
from peftbench.errors import UserError, nearest


@dataclass
class TaskConfig(AssetConfig):
    """A data set with its classes and metrics (the first is the primary one).

    Attributes:
        kind: of data and answer, out of `TASK_KINDS`.
        dir: a folder that holds the data.
        labels: names of the classes by index; empty where the data tell, or the labels are scores.
        splits: by name, where a split is, or the share of the training data that it is.
        ceiling: by metric, what human judges score who are no surer than that; tables show it.
    """

    kind: str = "text"
    dir: str | None = None
    labels: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    splits: dict[str, Any] = field(default_factory=dict)
    ceiling: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_source(self, "task")
        self.dir = absolute(self.dir)
        self.splits = {name: _source_of_split(name, value, self.files_of_splits) for name, value in self.splits.items()}
        twice = next((name for name in self.labels if self.labels.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"task.labels names {twice!r} twice: each class once, in the order of its number")
        if not self.metrics:
            raise UserError("task.metrics is empty: name at least one, e.g. task.metrics=[accuracy]")

    @property
    def files_of_splits(self) -> bool:
        """Whether splits are files of the user's own, rather than names within the source."""
        return False

    @property
    def longest(self) -> int | None:
        """Tokens of the longest example; None where the model itself makes them, of an image."""
        return None

    @property
    def texts_per_example(self) -> int:
        """How many texts an example has."""
        return 0

    @property
    def examples(self) -> str:
        """What examples are: texts | images."""
        return "texts" if self.texts_per_example else "images"


@dataclass
class TextTaskConfig(TaskConfig):
    """Texts or pairs of texts, cut to `max_length` tokens; two classes lie below and from `threshold` on."""

    text: list[str] = field(default_factory=list)
    label: str = "label"
    max_length: int = 128
    threshold: float | None = None

    def __post_init__(self) -> None:
        one_of("task.source", self.source, ("glue", "hub", "pypi", "local"))
        super().__post_init__()
        if len(self.text) not in (1, 2):
            raise UserError(
                f"task.text has {len(self.text)} columns: name one, or two for pairs, e.g. task.text=[text]"
            )
        if len({*self.text, self.label}) <= len(self.text):
            raise UserError(f"task.text={self.text} and task.label={self.label} must be different columns")
        at_least("task.max_length", self.max_length, 4)

    @property
    def files_of_splits(self) -> bool:
        """Whether splits are files of the user's own, rather than names within the source."""
        return self.source == "local"

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return self.max_length

    @property
    def texts_per_example(self) -> int:
        """How many texts an example has, 1 or 2."""
        return len(self.text)


@dataclass
class ImageTaskConfig(TaskConfig):
    """Images with a class each.

    Attributes:
        image_size: pixels of the square, or [height, width], that the model is given; null: the checkpoint's own.
        augment: what training does to an image at random, out of flip and crop.
        image: column of the images in a data set of the hub. label: of their classes.
    """

    image_size: int | list[int] | None = None
    augment: list[str] = field(default_factory=list)
    image: str = "image"
    label: str = "label"

    def __post_init__(self) -> None:
        one_of("task.source", self.source, ("local", "hub", "sklearn"))
        super().__post_init__()
        for name in self.augment:
            one_of("task.augment", name, ("flip", "crop"))
        _check_size(self.image_size)


@dataclass
class DenseTaskConfig(TaskConfig):
    """Pictures with something told at every place of them: masks of classes, or boxes.

    Attributes:
        image_size: [height, width], or the side of a square, in pixels that pictures and masks are brought to; the
            model is given the nearest size of whole patches; null: the commonest of the training pictures.
        augment: what training does to a picture at random, out of flip and crop.
        head: what answers at every place.
        head_layers: of how many layers, evenly spaced and the last among them, the head reads the outputs.
    """

    heads: ClassVar[tuple[str, ...]] = ()

    image_size: int | list[int] | None = None
    augment: list[str] = field(default_factory=list)
    head: str = ""
    head_layers: int = 1

    def __post_init__(self) -> None:
        one_of("task.source", self.source, ("local",))
        super().__post_init__()
        for name in self.augment:
            one_of("task.augment", name, ("flip", "crop"))
        one_of("task.head", self.head, self.heads)
        at_least("task.head_layers", self.head_layers, 1)
        _check_size(self.image_size)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width in pixels, None where the data tell."""
        if self.image_size is None:
            return None
        sides = self.image_size if isinstance(self.image_size, list) else 2 * [self.image_size]
        return sides[0], sides[1]


@dataclass
class SegmentationTaskConfig(DenseTaskConfig):
    """Pictures with the class of every pixel."""

    heads = ("linear", "upernet")
    head: str = "linear"


@dataclass
class DetectionTaskConfig(DenseTaskConfig):
    """Pictures with boxes around objects."""

    heads = ("center_points",)
    head: str = "center_points"


TASK_KINDS: dict[str, type[TaskConfig]] = {
    "text": TextTaskConfig,
    "images": ImageTaskConfig,
    "segmentation": SegmentationTaskConfig,
    "detection": DetectionTaskConfig,
}


def _check_size(size: int | list[int] | None) -> None:
    for side in [size] if isinstance(size, int) else size or []:
        at_least("task.image_size", side, 1)
    if isinstance(size, list) and len(size) != 2:
        raise UserError(f"task.image_size={size} must be one side of a square, or [height,width]")


def fill_task(values: Any) -> TaskConfig:
    """Build a task's config, of the class of its kind, from plain values of the config group.

    Raises UserError for an unknown kind, an unknown or missing key, a wrong type or a value out of range.
    """
    group = as_group(values, "task")
    kind = str(group.get("kind", "text"))
    if kind not in TASK_KINDS:
        raise UserError(f"task.kind={kind}: there is no such kind. {nearest(kind, TASK_KINDS)}")
    for key in ("text", "metrics", "augment"):
        if isinstance(group.get(key), str):  # task.text="Review Text" is one column
            group[key] = [group[key]]
    drop_unused(group)
    config: TaskConfig = fill(TASK_KINDS[kind], group, "task")
    return config


def drop_unused(group: dict[str, Any]) -> None:
    """Take out of a task's settings what conf/train.yaml gives to every task and this kind has no use for."""
    if group.get("kind", "text") != "text" and group.get("max_length") == TextTaskConfig.max_length:
        del group["max_length"]


def fill_text_task(values: Any) -> TextTaskConfig:
    """Build the config of a run that answers beside others; UserError where its task is not of texts."""
    config = fill_task(values)
    if not isinstance(config, TextTaskConfig):
        raise UserError(
            f"task {config.name} is of {config.kind}: several runs on one backbone answer texts alone, so name runs of"
            " text tasks"
        )
    return config


def check_whole_answers(config: TaskConfig, done: str) -> None:
    """Raise UserError for a task that no other library's classifier answers; `done` to its runs: exported."""
    if isinstance(config, DenseTaskConfig):
        raise UserError(
            f"task {config.name} is of {config.kind}, and runs that answer a whole text or image alone are {done}"
        )


def _source_of_split(split: str, value: Any, files: bool) -> str | float | None:
    """Return a split's file or its name in the source, or the share of the training data that it is."""
    if isinstance(value, bool | int | float):
        if split == "train" or isinstance(value, bool) or not 0 < value < 1:
            raise UserError(
                f"task.splits.{split}={value} must be a file"
                + ("" if split == "train" else ", or a share of the training data between 0 and 1, such as 0.2")
            )
        return float(value)
    if not isinstance(value, str | None):
        raise UserError(f"task.splits.{split}={value} must be one file; join several first")
    return absolute(value) if files else value
