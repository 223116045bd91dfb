"""A run's record of an adapter that another library trained."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from peftbench.assets.fetch import fetch
from peftbench.assets.weights import weights_digest
from peftbench.backbones.heads import HeadedBackbone, add_head
from peftbench.backbones.load import load_backbone
from peftbench.config.schema import RunConfig
from peftbench.config.task import check_whole_answers
from peftbench.errors import TakenOverError, UserError
from peftbench.measuring.parameters import count_parameters
from peftbench.methods import Method
from peftbench.runs.adapter import Description, save_adapter
from peftbench.runs.identity import run_id
from peftbench.runs.lock import RunLock
from peftbench.runs.origin import environment
from peftbench.runs.pinned_config import pin_config
from peftbench.runs.prepare import check_length, origin_of
from peftbench.runs.record import Record
from peftbench.runs.result import Imported, Parameters, Status
from peftbench.runs.scoring import SplitScore, evaluation_of, score_logits
from peftbench.serving.exchange.bring_in import read_folder, read_method
from peftbench.serving.exchange.folder import Foreign
from peftbench.serving.load import RunModel, inference
from peftbench.tasks.base import Task
from peftbench.tasks.kinds import load_task
from peftbench.terminal import error_console
from peftbench.training.devices import use_device, use_threads
from peftbench.training.inference import logits_of

SPLIT = "validation"


def import_run(
    config: RunConfig,
    folder: Path,
    overrides: list[str],
    working: Callable[[str], AbstractContextManager[Any]],
) -> Record:
    """Write the record of a folder that Hugging Face peft or AdapterHub saved, scored on the validation split.

    Args:
        config: task, model and where the record goes; its method is the folder's.
        folder: holds the adapter and the head. overrides: that made the config.
        working: shows what is under way.

    Raises UserError, and writes nothing, where the folder cannot be read, holds what cannot be expressed here, is of
    another base model or task, or has been imported before.
    """
    use_threads(config.threads)
    device = use_device(config.device)
    check_whole_answers(config.task, "imported")
    config = pin_config(config)
    foreign = read_folder(folder)
    task = load_task(config.task)
    base = fetch(config.model)
    weights = weights_digest(base, config.model.source)
    _check_labels(foreign, folder, task)
    _check_base(foreign, folder, config, base, weights)
    with working("loading the model"):
        loaded = load_backbone(base, config.model.dropout)
        task.check_model(loaded.sites, config.model.name)
        backbone = add_head(loaded, task.objective.num_outputs)
        method = _read(foreign, folder, config, backbone)
    check_length(config, backbone.sites.positions, method.extra_positions)
    plain = config.plain()
    plain["method"] = {"name": method.name, **asdict(method.exported()[0])}
    plain["imported"] = asdict(Imported(foreign.library, str(folder.absolute()), foreign.digest))
    record = Record(Path(config.output_dir) / config.experiment / run_id(plain))
    if not config.force and record.result_path.exists() and record.read().status == Status.IMPORTED:
        raise UserError(f"{folder} has been imported already: {record.folder}; force=true does it again")
    backbone.model.to(device)
    method.to(device)
    method.attach(backbone.sites)
    description = Description(plain["method"], plain["model"], plain["task"], list(task.labels))
    model = RunModel(backbone, method, description, base, weights)
    score = _score(model, task, config, working)
    with RunLock(record.folder):
        is_new = not record.result_path.exists()
        try:
            return _write(record.folder, plain, overrides, model, task, score, device)
        except TakenOverError:
            raise
        except BaseException:
            if is_new:
                shutil.rmtree(record.folder, ignore_errors=True)
            raise


def _score(
    model: RunModel, task: Task, config: RunConfig, working: Callable[[str], AbstractContextManager[Any]]
) -> SplitScore:
    """Score the model on the validation split."""
    trainer, sites = config.trainer, model.backbone.sites
    data = task.encode_split(SPLIT, sites)
    with working(f"scoring {len(data):,} examples"), inference(model, trainer.precision):
        logits = logits_of(model.backbone.model, data, trainer.eval_batch_size, trainer.precision, sites.device)
    return score_logits(task, logits, task.splits[SPLIT].labels)


def _write(
    folder: Path,
    config: dict[str, Any],
    overrides: list[str],
    model: RunModel,
    task: Task,
    score: SplitScore,
    device: torch.device,
) -> Record:
    """Write the record, its lock held; `config` as the record keeps it, with the imported method's settings."""
    precision, labels = config["trainer"]["precision"], list(task.labels)
    parameters: dict[str, Any] = count_parameters(model.method, model.backbone)
    record = Record.create(folder, config, overrides)
    record.write_predictions({SPLIT: score.predictions}, labels)
    save_adapter(record.adapter_dir, model.method, model.backbone, config["model"], config["task"], labels)
    evaluations = []
    if score.predictions.labels is not None:
        evaluations = [evaluation_of(task, SPLIT, score, precision, predictions=record.predictions_path.name)]
    record.finish(
        Status.IMPORTED,
        origin=origin_of(task, config["task"]["kind"], model.backbone, model.method, model.weights),
        primary=task.metrics[0],
        examples={SPLIT: len(score.predictions.predictions)},
        evaluations=evaluations,
        parameters=Parameters(**parameters),
        environment=environment(device, precision),
        imported=Imported(**config["imported"]),
    )
    return record


def _read(foreign: Foreign, folder: Path, config: RunConfig, backbone: HeadedBackbone) -> Method:
    kind = backbone.sites.base.config.model_type
    if foreign.model_type not in (None, kind):
        raise UserError(f"{folder} is of a {foreign.model_type} model, and {config.model.name} is {kind}: set model=…")
    try:
        return read_method(foreign, backbone)
    except UserError as error:
        base = f", of base model {foreign.base}," if foreign.base else ""
        raise UserError(f"cannot import {folder}{base} on {config.model.name}: {error}") from error


def _check_labels(foreign: Foreign, folder: Path, task: Task) -> None:
    """Raise UserError where the folder names other classes than the task, or the same in another order."""
    if foreign.labels and foreign.labels != list(task.labels):
        task_labels = ", ".join(task.labels) or "none, but a score"
        raise UserError(
            f"the classes of {folder} are {', '.join(foreign.labels)}, those of task {task.name} {task_labels}: choose"
            " the task that it was trained for, with task.labels in its order"
        )


def _check_base(foreign: Foreign, folder: Path, config: RunConfig, base: Path, weights: str) -> None:
    """Raise UserError where the folder was exported from other weights; warn where it only calls them otherwise."""
    if foreign.weights is not None:
        same_kind = foreign.weights.partition(":")[0] == weights.partition(":")[0]
        if same_kind and foreign.weights != weights:
            raise UserError(
                f"{folder} was trained on another base model than {config.model.name} in {base}: set model=…"
            )
        return
    names = {str(name).rstrip("/").rpartition("/")[2].lower() for name in (config.model.id, base) if name}
    if foreign.base and foreign.base.rstrip("/").rpartition("/")[2].lower() not in names:
        error_console.print(
            f"warning: {folder} calls its base model {foreign.base}; it is put on {config.model.name} from {base}"
        )
