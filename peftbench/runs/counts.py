"""Parameter counts of configs from their numbers alone: no weights are loaded."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from peftbench.assets.fetch import fetch
from peftbench.assets.hub import fetch_config_from_hub
from peftbench.backbones.heads import HeadedBackbone
from peftbench.backbones.load import blank_backbone
from peftbench.config.asset import ModelConfig
from peftbench.config.schema import RunConfig
from peftbench.config.task import TaskConfig
from peftbench.errors import UserError
from peftbench.files import parse_json
from peftbench.measuring.parameters import count_parameters
from peftbench.methods import build, method_class
from peftbench.runs.heads import put_head, puts_classifier
from peftbench.tasks.image.given import check_reads_images
from peftbench.tasks.metrics import CORRELATIONS
from peftbench.tasks.text.task import check_reads_texts

# of a saved config, what describes its own head and file, not the architecture
_NOT_ARCHITECTURE = (
    "num_labels",
    "id2label",
    "label2id",
    "problem_type",
    "architectures",
    "dtype",
    "torch_dtype",
)


def count_configs(configs: Sequence[RunConfig]) -> list[dict[str, int | float]]:
    """Return the counts of each config, see `measuring.parameters.count_parameters`.

    Raises UserError where a model's architecture cannot be had, or it does not read what the task is of.
    """
    backbones: dict[str, HeadedBackbone] = {}
    counts = []
    for config in configs:
        method_cls = method_class(config.method_name)
        of_head = None if puts_classifier(method_cls) else [method_cls.name, asdict(config.method)]
        decisive = [asdict(config.model), asdict(config.task), of_head, method_cls.makes_pyramid]
        model = json.dumps(decisive, sort_keys=True, default=str)
        if model not in backbones:
            blank = blank_backbone(_architecture(config.model), method_cls.answers_through)
            check_reads = check_reads_texts if config.task.texts_per_example else check_reads_images
            check_reads(blank.sites, config.task.name, config.model.name)
            backbones[model] = put_head(method_cls, config.method, blank, _labels(config.task), config.task)
        with torch.device("meta"):
            method = build(config.method, backbones[model].sites)
        counts.append(count_parameters(method, backbones[model]))
    return counts


def assumed_classes(task: TaskConfig) -> int | None:
    """Return how many classes a task is counted with that only its data tell; None where its config tells."""
    return None if task.labels or set(task.metrics) <= set(CORRELATIONS) else 2


def _labels(task: TaskConfig) -> list[str]:
    """Return the names of the classes, none for scores."""
    return list(task.labels) or [str(number) for number in range(assumed_classes(task) or 0)]


def _architecture(model: ModelConfig) -> dict[str, Any]:
    """Return the architecture's numbers: the config's own, else those in the model's config.json."""
    if model.architecture:
        return model.architecture
    path = fetch_config_from_hub(model) if model.source == "hub" else fetch(model) / "config.json"
    try:
        saved = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the model's config {path}: {error}") from error
    if not isinstance(saved, dict):
        raise UserError(f"{path} is no model's config: it holds no JSON object")
    return {key: value for key, value in saved.items() if key not in _NOT_ARCHITECTURE}
