"""Files of other people's evidence, made for the tests: systems of known truth on the same examples."""

import json

import numpy as np
from scipy.stats import norm


def answers(truths, examples, seeds=3, seed_sd=0.0, seed=0):
    """Return right answers by system, (seeds, examples); `truths` are accuracies over all examples there might be.

    What is hard about an example is so for all systems; seeds of one agree on most examples.
    """
    generator = np.random.default_rng(seed)
    hard = generator.standard_normal(examples)
    found = {}
    for name, truth in truths.items():
        drawn = truth + seed_sd * generator.standard_normal(seeds)
        luck = generator.standard_normal((seeds, examples))
        found[name] = (0.8**0.5 * hard + 0.2**0.5 * luck < norm.ppf(np.clip(drawn, 0.01, 0.99))[:, None]).astype(int)
    return found


def write_csv(path, systems, column="correct"):
    rows = [
        f"{name},{seed},e{example},{value}"
        for name, values in systems.items()
        for seed, of_seed in enumerate(values)
        for example, value in enumerate(of_seed)
    ]
    path.write_text("\n".join([f"system,seed,example,{column}", *rows]) + "\n", encoding="utf-8")
    return path


def write_harness(folder, systems, task="gsm8k", **more):
    """One folder a model and seed; `more` are further metrics of every sample."""
    for name, values in systems.items():
        for seed, of_seed in enumerate(values):
            model = folder / f"org__{name}-seed{seed}"
            model.mkdir(parents=True)
            samples = [
                {"doc_id": number, "doc_hash": f"h{number}", "filter": "none", "metrics": ["acc", *more]}
                | {"acc": float(value), **more}
                for number, value in enumerate(of_seed)
            ]
            lines = "".join(json.dumps(sample) + "\n" for sample in samples)
            (model / f"samples_{task}_2025-06-19T19-15-35.123456.jsonl").write_text(lines, encoding="utf-8")
    return folder


def write_peft(folder, scores, seed=0, metric="test accuracy", **info):
    """One file an experiment: `scores` on test by name."""
    folder.mkdir(exist_ok=True)
    for name, score in scores.items():
        content = {
            "run_info": {"experiment_name": name, "train_config": {"seed": seed}},
            "train_info": {
                "status": "success",
                "metrics": [{"step": 250, "valid accuracy": 0.4}, {"step": 500, metric: score, "train loss": 0.6}],
                **info,
            },
        }
        path = folder / f"{name.replace('/', '--')}-{seed}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
    return folder
