"""The run record: the folder a run leaves behind, `<output_dir>/<experiment>/<run id>/`."""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from peftbench.errors import UserError
from peftbench.files import atomic_write, check_regular, make_folder, parse_json, plain, remove, remove_temporaries
from peftbench.runs.digests import digests, first_damaged
from peftbench.runs.history import read_history
from peftbench.runs.identity import file_name, fingerprint, run_id
from peftbench.runs.pictures import FOLDER as PICTURES
from peftbench.runs.result import SCHEMA_VERSION, Evaluation, Result, Status, read_as
from peftbench.runs.seal import is_sealed, seal
from peftbench.runs.version1 import upgraded

if TYPE_CHECKING:
    from peftbench.config.schema import TrainerConfig
    from peftbench.runs.predictions import Predictions


@dataclass(frozen=True)
class Record:
    """A run's folder. Every file in it is written whole or not at all.

    Any method that writes raises UserError where the disk is full or the folder cannot be written, and
    TakenOverError where this process held the run's lock and has lost it.
    """

    folder: Path

    @property
    def result_path(self) -> Path:
        """Everything measured, as JSON."""
        return self.folder / "result.json"

    @property
    def config_path(self) -> Path:
        """The composed configuration."""
        return self.folder / "config.yaml"

    @property
    def history_path(self) -> Path:
        """One JSON object a line: the training curve."""
        return self.folder / "history.jsonl"

    @property
    def predictions_path(self) -> Path:
        """One line an example: label, prediction, probabilities."""
        return self.folder / "predictions.csv"

    @property
    def checkpoint_path(self) -> Path:
        """What an interrupted run continues from."""
        return self.folder / "checkpoint.pt"

    @property
    def adapter_dir(self) -> Path:
        """The trained tensors and how to attach them."""
        return self.folder / "adapter"

    @property
    def log_path(self) -> Path:
        """The run's log."""
        return self.folder / "train.log"

    @classmethod
    def create(cls, folder: Path, config: Mapping[str, Any], overrides: Sequence[str]) -> "Record":
        """Begin a run from its first step: status running, and nothing kept of an earlier attempt.

        Call it with the run's lock held. To continue from a checkpoint use `reopen`.
        """
        record = cls(folder)
        make_folder(folder)
        # First: a run killed from here on must not be continued from the earlier attempt.
        remove(record.checkpoint_path)
        # in three steps, each of which leaves a record that can be begun again
        record._write(_begin(config, overrides, {}))
        record._write_config(config)
        record.update(files=digests(folder, [record.config_path.name]))
        for path in (record.history_path, record.predictions_path, record.adapter_dir):
            remove(path)
        for name in ("evaluations", PICTURES):
            remove(folder / name)
        remove_temporaries(folder)
        return record

    def reopen(self) -> None:
        """Begin again where an interrupted run stopped: status running in this process, the rest kept."""
        remove_temporaries(self.folder)
        self.update(status=Status.RUNNING, error=None, finished=None, **_process())

    def read(self) -> Result:
        """Return what `result.json` holds; a record of schema version 1 is read as one of today's.

        Raises UserError where there is none, where it or `config.yaml` is not what was written, where the folder is
        another run's, or where a newer peftbench wrote it.
        """
        content = self._read_bytes()
        try:
            found = parse_json(content)
            schema = found["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(self.result_path) from error
        if not isinstance(schema, int) or schema < 1:
            raise self._damaged(self.result_path)
        if schema > SCHEMA_VERSION:
            raise UserError(
                f"{self.result_path} was written by a newer peftbench (schema {schema}, this one reads up to "
                f"{SCHEMA_VERSION}). Upgrade peftbench."
            )
        if schema == SCHEMA_VERSION and not is_sealed(content):
            raise self._damaged(self.result_path, "it is not what was written")
        try:
            result: Result = read_as(Result, upgraded(found) if schema == 1 else found, "result")
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise self._damaged(self.result_path, str(error)) from error
        if result.id != self.folder.absolute().name:
            raise UserError(f"{self.folder} holds the record of another run, {result.id}: give it its name back.")
        for name in (*result.files, *(evaluation.predictions or "." for evaluation in result.evaluations)):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise self._damaged(self.result_path, f"{name} is outside the run's folder")
        if self.config_path.name in result.files:
            self.check([self.config_path.name], result)
        return result

    def _read_bytes(self) -> bytes:
        try:
            check_regular(self.result_path)
            return self.result_path.read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"No run in {self.folder}: it has no result.json.") from error
        except OSError as error:
            raise UserError(f"Cannot read {self.result_path}: {error.strerror}.") from error

    def check(self, names: Sequence[str], result: Result | None = None) -> None:
        """Raise UserError unless these files of the record are those that were written.

        Files that the record knows no digest of (of schema version 1) pass. A folder's name stands for all in it.
        """
        known = (result or self.read()).files
        files = {
            name: digest
            for name, digest in known.items()
            if name in names or any(name.startswith(f"{folder}/") for folder in names)
        }
        if damaged := first_damaged(self.folder, files):
            raise self._damaged(self.folder / damaged, "it is not what was written")

    def _damaged(self, path: Path, reason: str = "") -> UserError:
        shown = f" ({reason})" if reason else ""
        remedy = f"Delete {self.folder} and train the run again; `train` does both with force=true."
        return UserError(f"{path} is damaged{shown}. {remedy}")

    def config(self) -> dict[str, Any]:
        """Return the configuration the run was started with.

        Raises UserError where it cannot be read or is not the one that the folder is named by.
        """
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import AliasEvent, YAMLError, parse

        try:
            check_regular(self.config_path)
            text = self.config_path.read_text(encoding="utf-8")
            # a few nested aliases stand for more than fits into memory, and no record is written with any
            if "*" in text and any(isinstance(event, AliasEvent) for event in parse(text)):
                raise self._damaged(self.config_path, "it has aliases")
            config = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
        except OSError as error:
            raise UserError(f"Cannot read {self.config_path}: {error.strerror}.") from error
        except (YAMLError, OmegaConfBaseException, ValueError, AssertionError, RecursionError) as error:
            raise self._damaged(self.config_path) from error
        if not isinstance(config, dict):
            raise self._damaged(self.config_path)
        plain_config = {str(key): value for key, value in config.items()}
        try:
            named = self.folder.absolute().name.endswith(f"-{fingerprint(plain_config)}")
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise self._damaged(self.config_path) from error
        if not named:
            raise self._damaged(self.config_path, "it is not the one that the folder is named by")
        return plain_config

    def trainer(self) -> "TrainerConfig":
        """Return the settings of training that the run was started with; raises UserError as `config` does."""
        from peftbench.config.fill import fill
        from peftbench.config.schema import TrainerConfig

        trainer: TrainerConfig = fill(TrainerConfig, self.config().get("trainer"), "trainer")
        return trainer

    def _write_config(self, config: Mapping[str, Any]) -> None:
        from omegaconf import OmegaConf

        with atomic_write(self.config_path) as file:
            file.write(OmegaConf.to_yaml(OmegaConf.create(plain(config))))

    def update(self, **fields: Any) -> None:
        """Set fields of the result; a field's old value is replaced, not merged into."""
        self._write(replace(self.read(), **fields, schema=SCHEMA_VERSION))

    def finish(self, status: Status = Status.FINISHED, **fields: Any) -> None:
        """Close the run as finished, with the time, what is given and the digests of its files, in one write."""
        names = [self.config_path.name, self.history_path.name, self.predictions_path.name]
        for within in (self.adapter_dir, self.folder / PICTURES):
            names += sorted(f"{within.name}/{path.name}" for path in within.glob("*"))
        files = digests(self.folder, names)
        self.update(**fields, status=status, error=None, finished=_now(), files=files)

    def fail(self, status: Status, error: str) -> None:
        """Close the run as failed, out of memory or interrupted, with the reason in words."""
        self.update(status=status, error=error, finished=_now())

    def _write(self, result: Result) -> None:
        text = json.dumps(plain(result.as_dict()), indent=2, ensure_ascii=False, allow_nan=False)
        with atomic_write(self.result_path, binary=True) as file:
            file.write(seal(text))

    def history(self) -> list[dict[str, Any]]:
        """Return the rows of the training curve, none where there is no file."""
        return read_history(self.history_path)

    def write_predictions(self, splits: Mapping[str, "Predictions"], classes: Sequence[str] = ()) -> None:
        """Write what the model answered at the end of training; see `runs.predictions`."""
        from peftbench.runs.predictions import write_predictions  # with numpy, which a list of runs does without

        write_predictions(self.predictions_path, splits, classes)

    def predictions(self, evaluation: Evaluation) -> "Predictions":
        """Return what the model answered in one of the record's evaluations.

        Raises UserError where the file is missing, not what was written, or has not the evaluation's rows.
        """
        from peftbench.runs.predictions import read_predictions

        if evaluation.predictions is None:
            raise UserError(f"{self.folder} has no predictions of {evaluation.split}.")
        self.check([evaluation.predictions])
        path = self.folder / evaluation.predictions
        found = read_predictions(path).get(evaluation.split)
        if found is None or len(found.predictions) != evaluation.examples:
            rows = 0 if found is None else len(found.predictions)
            raise self._damaged(path, f"{rows} rows of {evaluation.split} instead of {evaluation.examples}")
        return found

    def add_evaluation(self, evaluation: Evaluation, predictions: "Predictions", classes: Sequence[str]) -> Evaluation:
        """Store an evaluation beside the run's own and return it; one under the same conditions is replaced.

        Call it with the run's lock held.
        """
        from peftbench.runs.predictions import write_predictions

        conditions = [evaluation.split, evaluation.precision, evaluation.data]
        conditions += ["merged"] if evaluation.merged else []
        conditions += evaluation.left_out
        name = f"evaluations/{file_name('-'.join(conditions))}.csv"
        make_folder(self.folder / "evaluations")
        write_predictions(self.folder / name, {evaluation.split: predictions}, classes)
        result = self.read()
        others = [other for other in result.evaluations if other.conditions != evaluation.conditions]
        before = next((other for other in result.evaluations if other.conditions == evaluation.conditions), None)
        latency = evaluation.latency or (before.latency if before else None)  # what is measured outlives a new scoring
        stored = replace(evaluation, predictions=name, latency=latency)
        files = {**result.files, **digests(self.folder, [name])}
        self.update(evaluations=[*others, stored], files=files)
        return stored


def _begin(config: Mapping[str, Any], overrides: Sequence[str], files: dict[str, str]) -> Result:
    return Result(
        status=Status.RUNNING,
        id=run_id(config),
        experiment=config["experiment"],
        method=config["method"]["name"],
        task=config["task"]["name"],
        model=config["model"]["name"],
        seed=config["seed"],
        started=_now(),
        overrides=list(overrides),
        files=files,
        **_process(),
    )


def _process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
