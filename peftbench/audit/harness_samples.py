"""Samples of lm-evaluation-harness: `samples_TASK_DATE.jsonl`, one file a model, task and run (`--log_samples`)."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from peftbench.audit.evidence import Evidence, refuse_twice
from peftbench.audit.pairing import Names, pair
from peftbench.errors import UserError, nearest
from peftbench.files import parse_json

_FILE = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\w.+-]+)\.jsonl")
# a word of its own: Seed1.5 is a model's name
_SEED = re.compile(r"(?:^|[-_.])seed[-_=]?(\d+)(?![^\W_]|\.\d)", re.IGNORECASE)

_NO_METRICS = frozenset(
    ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter")
    + ("metrics", "doc_hash", "prompt_hash", "target_hash")
)
_MOST_NAMED = 8  # of the tasks or metrics that might have been chosen


class _Run(NamedTuple):
    path: Path
    system: str
    seed: str
    # document → (filter, metric) → score, and what the document was, as the harness hashed it
    scores: dict[str, dict[tuple[str, str], float]]
    hashes: dict[str, str]


def find_samples(folder: Path) -> list[Path]:
    """Return the files in the folder, and in folders of it, that are named as samples are."""
    return sorted(path for path in folder.rglob("samples_*.jsonl") if _FILE.fullmatch(path.name))


def read_harness(folder: Path, paths: Sequence[Path], task: str | None, metric: str | None) -> Evidence:
    """Read what every model scored on every document of one task.

    A model is named by the folder of its samples, and by those above it too where another model has that name; a
    `seed0`, `seed1` … in these is the seed, or else the `random_seed` in the results file beside, or else the date.

    Args:
        folder: for errors. paths: of the samples.
        task, metric: the first there is unless given; the metric as `acc`, or with its filter as the harness writes
            it, `exact_match,strict-match`.

    Raises UserError where there is no such task or metric, a run twice, or models answered for other documents.
    """
    where = str(folder)
    tasks = list(dict.fromkeys(_named(path)["task"] for path in paths))
    task, notes = _chosen(where, "task", task, tasks)
    of_task = [path for path in paths if _named(path)["task"] == task]
    named = list(zip(of_task, _systems(folder, of_task), strict=True))
    refuse_twice(where, [(*run, path) for path, run in named])
    runs = [_read(path, *run) for path, run in named]
    metrics = list(dict.fromkeys(key for run in runs for scores in run.scores.values() for key in scores))
    filters = {name for name, _ in metrics}
    spelt = {f"{name},{of_filter}" if len(filters) > 1 else name: (of_filter, name) for of_filter, name in metrics}
    if not spelt:
        raise UserError(f"{where}: no sample of {task} has a number for a score")
    metric, more = _chosen(where, "metric", metric, list(spelt))
    _check_documents(where, runs)
    systems, seeds, documents, values = [], [], [], []
    for run in runs:
        for document, scores in run.scores.items():
            if spelt[metric] not in scores:
                raise UserError(f"{run.path}: document {document} has no {metric}")
            systems.append(run.system)
            seeds.append(run.seed)
            documents.append(document)
            values.append(scores[spelt[metric]])
    paired = pair(where, _names(systems), _names(seeds), _names(documents), np.array(values))
    return Evidence(where, f"{task} {metric}", paired, len(set(documents)), [*notes, *more])


def _named(path: Path) -> re.Match[str]:
    found = _FILE.fullmatch(path.name)
    assert found is not None
    return found


def _chosen(where: str, what: str, given: str | None, there: list[str]) -> tuple[str, list[str]]:
    if given is not None and given not in there:
        raise UserError(f"{where}: there is no {what} {given!r}. {nearest(given, there)}")
    if given is not None or len(there) == 1:
        return given or there[0], []
    others = ", ".join(there[1 : 1 + _MOST_NAMED]) + (" …" if len(there) > 1 + _MOST_NAMED else "")
    return there[0], [f"{what} {there[0]}; --{what} chooses another: {others}"]


def _read(path: Path, system: str, seed: str) -> _Run:
    scores: dict[str, dict[tuple[str, str], float]] = {}
    hashes: dict[str, str] = {}
    for number, sample in _lines(path):
        document = sample.get("doc_id")
        # of before late 2024 samples do not name their metrics
        metrics = sample.get("metrics") or [key for key in sample if key not in _NO_METRICS]
        if not isinstance(metrics, list) or document is None:
            raise UserError(
                f"{path}, line {number}: it is no sample of lm-evaluation-harness: no doc_id, or no metrics"
            )
        of_document = scores.setdefault(str(document), {})
        of_filter = str(sample.get("filter", "none"))
        for metric in (name for name in metrics if isinstance(name, str)):
            value = sample.get(metric)
            if isinstance(value, int | float):
                if (of_filter, metric) in of_document:
                    raise UserError(f"{path}, line {number}: document {document} is there twice: keep one")
                of_document[of_filter, metric] = _number(value)
        hashes[str(document)] = str(sample.get("doc_hash", ""))
    if not scores:
        raise UserError(f"{path}: there is no sample in it")
    return _Run(path, system, seed, scores, hashes)


def _number(value: float) -> float:
    """Return it as a float; a whole number too large for one is infinite, which is no score."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    sample = json.loads(line)
                    if not isinstance(sample, dict):
                        raise ValueError("it is no object")
                    yield number, sample
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: {error.reason}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, line {number}: it is no JSON: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _systems(folder: Path, paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Return the model's name and the seed of each file of samples."""
    names, parents, seeds = [], [], []
    for path in paths:
        parts = path.parent.relative_to(folder).parts or (path.resolve().parent.name,)
        found = [_SEED.search(part) for part in parts]
        bare = [part[: at.start()] + part[at.end() :] if at else part for part, at in zip(parts, found, strict=True)]
        names.append(bare[-1])
        parents.append([part for part in bare[:-1] if part])
        seeds.append(next((at[1] for at in reversed(found) if at), None) or _seed_beside(path))
    above = {name: {tuple(of) for of, other in zip(parents, names, strict=True) if other == name} for name in names}
    full = [name if len(above[name]) == 1 else "/".join([*of, name]) for name, of in zip(names, parents, strict=True)]
    return [(name.replace("__", "/"), seed) for name, seed in zip(full, seeds, strict=True)]


def _seed_beside(path: Path) -> str:
    seed = _results(path.with_name(f"results_{_named(path)['date']}.json")).get("random_seed")
    return _named(path)["date"] if seed is None else str(seed)


def _results(path: Path) -> dict[str, Any]:
    """Return the settings that the harness wrote beside its samples, none where it did not."""
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return {}
    config = content.get("config") if isinstance(content, dict) else None
    return config if isinstance(config, dict) else {}


def _check_documents(where: str, runs: Sequence[_Run]) -> None:
    first = runs[0]
    for run in runs:
        for document in run.hashes.keys() & first.hashes.keys():
            if run.hashes[document] != first.hashes[document]:
                raise UserError(
                    f"{where}: document {document} of {run.system} is not that of {first.system} (doc_hash): they were"
                    " asked for other data"
                )


def _names(texts: Sequence[str]) -> Names:
    codes = {text: code for code, text in enumerate(dict.fromkeys(texts))}
    return Names(list(codes), np.array([codes[text] for text in texts], np.int64))
