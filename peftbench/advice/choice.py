"""Which of the user's runs are compared: one a seed of every setting of a method, in the way it was trained best."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from peftbench.errors import UserError
from peftbench.runs.find import Run
from peftbench.runs.identity import NEUTRAL, fingerprint
from peftbench.tables.collect import PlannedRun
from peftbench.tables.spec import EvaluationSpec

# what names the runs that a fusion is made of, which are others for each seed
_OF_RUNS = ("runs", "adapters", "adapter_method")
# settings that belong to a method's name even where all runs share them, as they are written
_SIZES = {"bottleneck": "m =", "rank": "r =", "length": "length"}
_Seeds = dict[int, tuple[Run, dict[str, Any]]]
# by how a method was trained
_Ways = dict[str, _Seeds]


def choose_runs(runs: Sequence[Run]) -> tuple[list[PlannedRun], list[str]]:
    """Return one run a seed of every setting of a method, and remarks on how it was chosen.

    A method that was trained in several ways (rates, epochs) is taken in the one that has the most seeds, and of these
    in the one with the highest mean score on validation.
    """
    found: dict[str, _Ways] = defaultdict(lambda: defaultdict(dict))
    damaged = []
    for run in runs:  # from the oldest to the newest, which replaces one of the same seed
        try:
            config = _config(run)
            found[_key(settings_of(config))][_way(config)][int(config["seed"])] = run, config
        except UserError as error:
            damaged.append(str(error))
    ways, of_shortened = _without_shortened(found)
    chosen = {method: max(by_way.values(), key=_standing) for method, by_way in ways.items()}
    labels = _labels({method: settings_of(next(iter(seeds.values()))[1]) for method, seeds in chosen.items()})
    everywhere = all(run.result and _has_test(run) for seeds in chosen.values() for run, _ in seeds.values())
    shown = EvaluationSpec("test" if everywhere else "validation")
    planned = [
        PlannedRun(labels[method], seed, list(run.result.overrides), config, run.record.folder, evaluation=shown)
        for method, seeds in chosen.items()
        for seed, (run, config) in sorted(seeds.items())
        if run.result
    ]
    several = [labels[method] for method, by_way in ways.items() if len(by_way) > 1]
    remarks = [f"damaged and left out: {'; '.join(damaged)}"] if damaged else []
    remarks += of_shortened
    if several:
        biased = "" if everywhere else ", which flatters it: the same examples are shown here"
        remarks.append(
            f"trained in several ways, of which the one with the most seeds and then the highest score on validation is"
            f" taken{biased}: {', '.join(several)}"
        )
    return planned, remarks


def _without_shortened(ways: Mapping[str, _Ways]) -> tuple[Mapping[str, _Ways], list[str]]:
    """Return the ways without those that trainer.max_steps cuts short, as stages of a search are, and a remark on them.

    All of them where fewer than two methods would be left to compare.
    """
    whole = {
        method: {way: seeds for way, seeds in by_way.items() if not any(map(_is_shortened, seeds.values()))}
        for method, by_way in ways.items()
    }
    whole = {method: by_way for method, by_way in whole.items() if by_way}
    if len(whole) < 2:
        mixed = whole and whole != ways
        return ways, ["runs that trainer.max_steps cut short stand beside others trained to their end"] if mixed else []
    cut = _count(ways) - _count(whole)
    left_out = f"{cut:,} runs that trainer.max_steps cut short are left out, beside others trained to their end"
    return whole, [left_out] if cut else []


def _count(ways: Mapping[str, _Ways]) -> int:
    return sum(len(seeds) for by_way in ways.values() for seeds in by_way.values())


def _is_shortened(run: tuple[Run, Mapping[str, Any]]) -> bool:
    trainer = run[1].get("trainer")
    return isinstance(trainer, Mapping) and trainer.get("max_steps") is not None


def _config(run: Run) -> dict[str, Any]:
    """Return a run's config; raises UserError where it lacks what is read of it here."""
    config, result = run.record.config(), run.result
    assert result is not None
    method, task = config["method"], config["task"]
    configured = [method.get("name"), task.get("name"), config["seed"]] if isinstance(task, dict) else []
    if configured != [result.method, result.task, result.seed] or result.primary not in (task.get("metrics") or ()):
        raise UserError(f"{run.record.config_path} is not of the run that result.json tells of")
    return config


def _has_test(run: Run) -> bool:
    evaluation = run.result.evaluation("test") if run.result else None
    return evaluation is not None and evaluation.metrics.get(str(run.result and run.result.primary)) is not None


def _standing(seeds: _Seeds) -> tuple[int, float]:
    """Return how many seeds there are and their mean score on validation."""
    results = [run.result for run, _ in seeds.values() if run.result]
    scores = [result.metrics.get("validation", {}).get(str(result.primary)) for result in results]
    return len(seeds), fmean(float("-inf") if score is None else score for score in scores)


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a method is apart from its seed: settings that leave it as it was are left out."""
    method = config["method"]
    settings = {key: value for key, value in method.items() if key not in _OF_RUNS and value != NEUTRAL.get(key, ...)}
    adapters = method.get("adapters")
    return {**settings, "adapters": sorted(adapters)} if isinstance(adapters, dict) and adapters else settings


def _way(config: Mapping[str, Any]) -> str:
    """Return what tells the ways apart that a method was trained in: the settings of all but method and seed."""
    return fingerprint({**config, "method": {}, "seed": 0})


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True, default=str)


def _labels(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Name each setting of a method by what it does not share with the others of that method."""
    labels = {}
    for key, method in methods.items():
        same = [other for other in methods.values() if other["name"] == method["name"]]
        differing = [
            name
            for name, value in method.items()
            if any(other.get(name) != value for other in same) or (name in _SIZES and value is not None)
        ]
        shown = [f"{_SIZES.get(name, name.replace('_', ' '))} {_text(method[name])}" for name in differing]
        labels[key] = f"{method['name']} {', '.join(shown)}".rstrip()
    return labels


def _text(value: Any) -> str:
    return json.dumps(value, default=str).replace('"', "").lower()
