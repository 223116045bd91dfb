"""An ordinary transformers folder of a run: the method in the weights, the head on top."""

from pathlib import Path
from typing import Any

from peftbench.backbones.load import quiet
from peftbench.errors import UserError
from peftbench.methods import METHODS, Method
from peftbench.serving.load import RunModel


def check_fits_into_weights(name: str) -> None:
    """Raise UserError for a method that acts beside the weights."""
    fitting = [
        name
        for name, cls in METHODS.items()
        if (cls.mergeable or cls.hook is Method.hook) and cls.answers_through == "classifier"
    ]
    if name not in fitting:
        raise UserError(
            f"--to merged: {name} acts beside the weights, and plain transformers has no place for it; what can be"
            f" exported so is {', '.join(sorted(fitting))}"
        )


def write_merged(model: RunModel, processor: Any, folder: Path) -> None:
    """Write config, weights and tokenizer or image processor; the method stays merged.

    Raises UserError, with the method unmerged, where the weights it makes are more than the architecture has.
    """
    if type(model.method).mergeable:
        _merge(model)
    labels = model.description.labels
    headed: Any = model.backbone.model
    headed.config.architectures = [type(headed).__name__]
    if labels:
        headed.config.id2label = dict(enumerate(labels))
        headed.config.label2id = {label: number for number, label in enumerate(labels)}
    headed.config.problem_type = "single_label_classification" if labels else "regression"
    with quiet():
        headed.save_pretrained(folder)
    processor.save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):  # written as its owner's alone, unlike the rest
        weights.chmod((folder / "config.json").stat().st_mode)


def check_merged_weights(model: RunModel) -> None:
    """Raise UserError where merging makes weights that the architecture has no place for; nothing stays merged."""
    if type(model.method).mergeable:
        _merge(model)
        model.method.unmerge()


def _merge(model: RunModel) -> None:
    headed = model.backbone.model
    places = dict(headed.named_parameters())
    model.method.merge()
    # transformers drops what it has no place for when it loads, and the model would answer otherwise
    new = next((name for name, _ in headed.named_parameters() if name not in places), None)
    if new is not None:
        model.method.unmerge()
        module, _, parameter = new.rpartition(".")
        raise UserError(
            f"method={model.method.name} gives {module} a {parameter}, which a {type(headed).__name__} of this config"
            " has no place for"
        )
