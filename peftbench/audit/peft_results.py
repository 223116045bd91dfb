"""Results of Hugging Face peft's method comparison: a folder of JSON files, one a run, without single examples."""

from pathlib import Path
from typing import Any

import numpy as np

from peftbench.audit.evidence import Evidence, System, refuse_twice
from peftbench.audit.unpaired import count_examples, standard_errors
from peftbench.errors import UserError, nearest
from peftbench.files import is_number

_SPLIT = "test "


def is_result(content: Any) -> bool:
    """Tell whether a JSON file's content is such a result."""
    return isinstance(content, dict) and all(isinstance(content.get(key), dict) for key in ("run_info", "train_info"))


def read_peft(folder: Path, contents: dict[Path, Any], metric: str | None, examples: int | None) -> Evidence:
    """Read the results: of each experiment and seed the score on test after training.

    Args:
        folder: for errors. contents: of its files that are results.
        metric: without `test `; the first there is unless given.
        examples: how many the scores are over; inferred from them unless given.

    Raises UserError where no run has such a score, two are of one experiment and seed, or n cannot be inferred.
    """
    runs, unfinished = [], []
    for path, content in contents.items():
        if content["train_info"].get("status") == "success":
            runs.append((path, *_identity(path, content), _test_scores(path, content)))
        else:
            unfinished.append(path.name)
    metrics = list(dict.fromkeys(name for *_, scores in runs for name in scores))
    if not metrics:
        raise UserError(f"{folder}: no finished run has a score on test (train_info.metrics, test …)")
    if metric is None:
        metric = metrics[0]
    if metric not in metrics:
        raise UserError(f"{folder}: there is no score {metric!r} on test. {nearest(metric, metrics)}")
    scored = [(name, seed, scores[metric], path) for path, name, seed, scores in runs if metric in scores]
    refuse_twice(str(folder), [(name, str(seed), path) for name, seed, _, path in scored])
    notes = _notes(metric, metrics, len(runs) - len(scored), unfinished)
    if examples is None:
        examples = count_examples([score for _, _, score, _ in scored])
        if examples is None:
            raise UserError(f"{folder}: the results do not say over how many examples they are: --examples N does")
        notes.append(
            f"n = {examples:,} is inferred: the least number of which all scores are whole shares; --examples N says"
            " another"
        )
    systems = {}
    for name in dict.fromkeys(name for name, *_ in scored):
        of_system = sorted((seed, score) for of, seed, score, _ in scored if of == name)
        scores = np.array([score for _, score in of_system])
        errors = standard_errors(f"{folder}: {name}", scores, examples)
        systems[name] = System([str(seed) for seed, _ in of_system], scores, errors=errors)
    return Evidence(str(folder), metric, systems, examples, notes)


def _identity(path: Path, content: dict[str, Any]) -> tuple[str, int]:
    info = content["run_info"]
    config = info.get("train_config")
    name, seed = info.get("experiment_name"), config.get("seed") if isinstance(config, dict) else None
    if not isinstance(name, str) or not name or not isinstance(seed, int):
        raise UserError(f"{path}: run_info has no experiment_name, or its train_config no seed")
    return name, seed


def _test_scores(path: Path, content: dict[str, Any]) -> dict[str, float]:
    """Return the scores on test by their names, of the last entry that has any."""
    entries = content["train_info"].get("metrics")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path}: train_info.metrics is no list of scores")
    for entry in reversed(entries):
        scores = {key.removeprefix(_SPLIT): score for key, score in entry.items() if key.startswith(_SPLIT)}
        if scores:
            for name, score in scores.items():
                if not is_number(score):
                    raise UserError(f"{path}: {_SPLIT}{name} is {str(score)[:20]}, which is no score")
            return scores
    return {}


def _notes(metric: str, metrics: list[str], lacking: int, unfinished: list[str]) -> list[str]:
    notes = []
    if others := [name for name in metrics if name != metric]:
        notes.append(f"scored by {metric}; --metric chooses {' or '.join(others)}")
    if lacking:
        notes.append(f"left out for want of {_SPLIT}{metric}: {lacking} run{'s' if lacking > 1 else ''}")
    if unfinished:
        notes.append(f"left out, for they did not finish: {', '.join(unfinished)}")
    return notes
