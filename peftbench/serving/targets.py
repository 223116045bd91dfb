"""What a run can be exported to: for each target, which methods it takes, how it is written and how it is loaded."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peftbench.backbones.image_tokens import INTERPOLATE, interpolates_when_asked
from peftbench.errors import UserError
from peftbench.runs.identity import file_name
from peftbench.serving.exchange import adapterhub_folder, peft_folder
from peftbench.serving.exchange.folder import write_provenance
from peftbench.serving.load import RunModel
from peftbench.serving.merged import check_fits_into_weights, check_merged_weights, write_merged

ADAPTERS_PYTHON = "PEFTBENCH_ADAPTERS_PYTHON"


@dataclass(frozen=True)
class Target:
    """One form that a run is exported in.

    Attributes:
        title: of what reads it.
        check: raises UserError for the name of a method that it cannot take, or where what reads it is missing.
        check_model: raises UserError for a model, or settings of its method, that it cannot express.
        write: (the run's id, its model, its tokenizer or image processor, an empty folder) writes it.
        python: the interpreter that has what reads it; None where there is none.
        loading: (the folder, the base model, what else loads that) → the lines of Python that load it for texts.
    """

    title: str
    check: Callable[[str], None]
    check_model: Callable[[RunModel], None]
    write: Callable[[str, RunModel, Any, Path], None]
    python: Callable[[], str | None]
    loading: Callable[[str, str, str], str]


def _this_python() -> str | None:
    return sys.executable


def base_model(model: RunModel) -> str:
    """Return the base model's name on the hub, which anybody can load, or its folder where it is not from there."""
    return str(model.description.model.get("id") or model.base)


def base_revision(model: RunModel) -> str | None:
    """Return the base model's commit on the hub, or the revision asked for; None where it is not from the hub."""
    if not model.description.model.get("id"):
        return None
    kind, _, commit = model.weights.partition(":")
    return commit if kind == "commit" else model.description.model.get("revision")


def loading_lines(to: str, folder: str, model: RunModel, processor: Any) -> str:
    """Return the lines of Python that load an exported folder."""
    labels = model.description.labels
    arguments = [f"id2label={dict(enumerate(labels))}" if labels else "num_labels=1"]
    if to == "peft":  # else transformers 5 takes what it was saved in
        arguments.append('dtype="float32"')
    if revision := base_revision(model):
        arguments.append(f"revision={json.dumps(revision)}")
    if attention := attention_needed(to, model.method.name):
        arguments.append(f'attn_implementation="{attention}"')
    saved = model.backbone.backbone.saved_head
    if any(saved[name].shape != tensor.shape for name, tensor in model.backbone.head.items() if name in saved):
        arguments.append("ignore_mismatched_sizes=True")
    if model.backbone.sites.image is not None:
        return _load_for_images(to, json.dumps(folder), json.dumps(base_model(model)), ", ".join(arguments)) + (
            f'batch = processor(image, return_tensors="pt")  # an image of PIL\'s\nlogits = model(**batch'
            f"{''.join(f', {name}={value}' for name, value in call_settings(model, processor).items())}).logits\n"
        )
    return TARGETS[to].loading(json.dumps(folder), json.dumps(base_model(model)), ", ".join(arguments))


def _load_for_images(to: str, folder: str, base: str, arguments: str) -> str:
    named = "from transformers import AutoImageProcessor, AutoModelForImageClassification"
    prepared = f"processor = AutoImageProcessor.from_pretrained({folder})"
    if to == "merged":
        return f"{named}\n\n{prepared}\nmodel = AutoModelForImageClassification.from_pretrained({folder})\n"
    return (
        f"from peft import PeftModel\n{named}\n\n{prepared}\n"
        f"base = AutoModelForImageClassification.from_pretrained({base}, {arguments})\n"
        f"model = PeftModel.from_pretrained(base, {folder})\n"
    )


def call_settings(model: RunModel, processor: Any) -> dict[str, bool]:
    """Return keyword arguments for calling the model: `interpolate_pos_encoding` for images of another size."""
    sites = model.backbone.sites
    if sites.image is None or not interpolates_when_asked(sites.base):
        return {}
    size = processor.crop_size if processor.do_center_crop else processor.size
    return {} if (size.height, size.width) == sites.image.size else {INTERPOLATE: True}


def _check_known(model: RunModel) -> None:
    """Raise UserError where the classifier is one that transformers has not."""
    if not model.backbone.backbone.classifier_class.__module__.startswith("transformers."):
        raise UserError(
            f"transformers has no image classifier on a {type(model.backbone.sites.base).__name__}, so it could not"
            " load one"
        )


def attention_needed(to: str, method: str) -> str | None:
    """Return the attention implementation that a method needs in a target's library, None where any will do.

    AdapterHub's prompts and prefixes lose the padding mask in torch's fused attention.
    """
    return "eager" if to == "adapters" and method in ("prefix", "prompt", "mam") else None


# merged -------------------------------------------------------------------------------------------------


def _check_merged(model: RunModel) -> None:
    _check_known(model)
    check_merged_weights(model)


def _write_merged(run: str, model: RunModel, processor: Any, folder: Path) -> None:
    write_merged(model, processor, folder)


def _load_merged(folder: str, base: str, arguments: str) -> str:
    return f"""\
from transformers import pipeline

answer = pipeline("text-classification", model={folder})
"""


# Hugging Face peft --------------------------------------------------------------------------------------


def _check_peft(name: str) -> None:
    if name == "prompt":
        raise UserError(
            "--to peft: method=prompt puts its vectors in behind the embeddings' layer norm, and the head reads the"
            " model's own first token; peft puts them in before the norm, and the head reads the first of them."
            f" What can be exported so is {', '.join(sorted(peft_folder.CONVERTERS))}; --to adapters takes prompt"
        )
    if name == "peft":
        raise UserError(
            "--to peft: what method=peft trained with peft's own layers cannot be written as a folder of peft yet;"
            f" what can be is {', '.join(sorted(peft_folder.CONVERTERS))}"
        )
    _check_method("peft", name, peft_folder.CONVERTERS)
    if find_spec("peft") is None:
        raise UserError(
            "--to peft: Hugging Face peft, which has to load what is written, is not installed here:"
            " pip install 'peftbench[peft]'"
        )


def _check_method(target: str, name: str, methods: Any) -> None:
    if name not in methods:
        raise UserError(f"--to {target}: it has no {name}; what can be exported so is {', '.join(sorted(methods))}")


def _check_peft_model(model: RunModel) -> None:
    _check_known(model)
    peft_folder.settings_of(model.method, model.backbone)


def _write_peft(run: str, model: RunModel, processor: Any, folder: Path) -> None:
    if model.backbone.sites.image is not None:  # its size may be another than the base model's
        processor.save_pretrained(folder)
    peft_folder.write(folder, model.method, model.backbone, base_model(model), base_revision(model))
    _write_provenance(run, model, folder)


def _load_peft(folder: str, base: str, arguments: str) -> str:
    return f"""\
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

base = AutoModelForSequenceClassification.from_pretrained({base}, {arguments})
model = PeftModel.from_pretrained(base, {folder})
"""


# AdapterHub ---------------------------------------------------------------------------------------------


def _check_adapters(name: str) -> None:
    _check_method("adapters", name, adapterhub_folder.CONVERTERS)
    if python := _adapters_python():
        _check_imports(python, "adapters")


def _adapters_python() -> str | None:
    """Return the Python that the user names; the library needs transformers 4, and so an environment of its own."""
    named = os.environ.get(ADAPTERS_PYTHON)
    if not named:
        return None
    if shutil.which(named) is None:
        raise UserError(f"{ADAPTERS_PYTHON}={named}: no such program; name the Python of an environment with adapters")
    return named


def _check_imports(python: str, library: str) -> None:
    """Raise UserError where a Python that the user names has no such library: not when all else is done."""
    try:
        line = [python, "-c", f"import {library}"]
        ran = subprocess.run(line, env=environment_of(python), capture_output=True, text=True)
        reason = last_line(ran) if ran.returncode else None
    except OSError as error:
        reason = str(error.strerror)
    if reason is not None:
        raise UserError(
            f"{ADAPTERS_PYTHON}={python}: it cannot import {library} ({reason}); name the Python of an environment"
            f" with {library}"
        )


def environment_of(python: str) -> dict[str, str]:
    """Return the environment variables for a Python that loads what was exported, without the network."""
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "1"}
    if python != sys.executable:
        variables.pop("PYTHONPATH", None)  # this environment's packages are not the other's
    return variables


def last_line(ran: "subprocess.CompletedProcess[str]") -> str:
    """Return what a process that failed said last, a traceback's error."""
    return (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]


def _check_adapters_model(model: RunModel) -> None:
    adapterhub_folder.settings_of(model.method, model.backbone)


def _write_adapters(run: str, model: RunModel, processor: Any, folder: Path) -> None:
    name = re.sub(r"\W", "_", file_name(str(model.description.task["name"])))
    adapterhub_folder.write(folder, model.method, model.backbone, name, model.description.labels)
    _write_provenance(run, model, folder)


def _load_adapters(folder: str, base: str, arguments: str) -> str:
    return f"""\
import adapters
from transformers import AutoModelForSequenceClassification

model = AutoModelForSequenceClassification.from_pretrained({base}, {arguments})
adapters.init(model)
model.load_adapter({folder}, set_active=True, use_safetensors=True)
"""


def _write_provenance(run: str, model: RunModel, folder: Path) -> None:
    write_provenance(folder, run, model.description.model, model.weights, model.description.labels)


TARGETS = {
    "merged": Target(
        "plain transformers", check_fits_into_weights, _check_merged, _write_merged, _this_python, _load_merged
    ),
    "peft": Target("Hugging Face peft", _check_peft, _check_peft_model, _write_peft, _this_python, _load_peft),
    "adapters": Target(
        "AdapterHub's adapters",
        _check_adapters,
        _check_adapters_model,
        _write_adapters,
        _adapters_python,
        _load_adapters,
    ),
}
