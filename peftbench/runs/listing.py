"""Runs as flat dictionaries, which lists of runs show, sort and filter by."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from peftbench.errors import UserError
from peftbench.runs.find import UNREADABLE, Run, find_runs
from peftbench.runs.result import Status

# what stands in front
_FIRST = ("experiment", "method", "task", "model", "seed")
# groups of the config that hold settings of the run, besides the seed
_GROUPS = ("method", "task", "model", "trainer")


def list_runs(output_dir: Path, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the runs under `output_dir` that have these values, by dotted key, oldest first."""
    return [row for row in map(flat_run, find_runs(output_dir)) if matches(row, filters)]


def flat_run(run: Run) -> dict[str, Any]:
    """Return a run's identity, status, settings, scores and figures under dotted keys, as `peftbench.runs` has them."""
    head: dict[str, Any] = {"id": run.id, "status": str(run.status), "folder": str(run.record.folder)}
    if run.status == UNREADABLE:
        return {**head, "error": run.error}
    result = {key: value for key, value in run.facts.items() if key not in head}
    scores = result.pop("metrics", None) or {}
    head |= {key: result.get(key) for key in _FIRST}
    head["score"] = (scores.get("validation") or {}).get(result.get("primary"))
    return {**head, **settings_of(run), **dict(_flat(scores)), **dict(_flat(result))}


def settings_of(run: Run) -> dict[str, Any]:
    """Return a run's settings under dotted keys: `method.rank`, `trainer.lr`, `seed`; empty where they are damaged."""
    try:
        config = run.record.config()
    except UserError:
        return {}
    # an imported run was trained elsewhere, by settings that nobody knows here
    known = (group for group in _GROUPS if group != "trainer" or run.status != Status.IMPORTED)
    groups = {group: config.get(group) for group in known}
    settings = {key: value for key, value in _flat(groups) if not key.endswith(".name")}
    return {**settings, "seed": config.get("seed")}


def matches(row: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    """Tell whether a run has all the values asked for; text is read as the command line has it: `1e-3`, `true`."""
    return all(key in row and _same(row[key], value) for key, value in filters.items())


def _same(value: Any, asked: Any) -> bool:
    if not isinstance(asked, str) or isinstance(value, str):
        return bool(value == asked)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(asked) == value
        except ValueError:
            return False
    return json.dumps(value).replace('"', "").replace(" ", "") == asked.replace("'", "").replace(" ", "")


def sort_rows(rows: Sequence[Mapping[str, Any]], key: str) -> list[int]:
    """Return the indices of the rows sorted by a key: scores descending, all else ascending, rows without it last."""

    def place(number: int) -> tuple[bool, bool, float, str]:
        value = rows[number].get(key)
        size = value if isinstance(value, int | float) else None
        return value is None, size is None, -(size or 0) if key == "score" else (size or 0), str(value)

    return sorted(range(len(rows)), key=place)


def differing_settings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings in which runs of one method, task or model differ; `seed` is in their names."""
    values: dict[tuple[str, Any], set[str]] = {}
    for row in rows:
        for key, value in row.items():
            group = key.partition(".")[0]
            if "." in key and group in _GROUPS:
                values.setdefault((key, row.get(group)), set()).add(json.dumps(value, default=str))
    return sorted({key for (key, _), found in values.items() if len(found) > 1})


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk nested objects to (dotted key, value) pairs; lists of plain values stay whole."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _flat(entry, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, Sequence) and any(isinstance(entry, Mapping) for entry in value):
        for number, entry in enumerate(value):
            yield from _flat(entry, f"{prefix}.{number}")
    else:
        yield prefix, value
