"""The run record: the folder a run leaves behind, `<output_dir>/<experiment>/<run id>/`."""

import csv
import json
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from peftbench.errors import UserError
from peftbench.files import (
    atomic_write,
    make_folder,
    plain,
    remove_temporaries,
    write_error,
    write_json,
)
from peftbench.runs.identity import run_id

SCHEMA_VERSION = 1


class Status(StrEnum):
    """What became of a run, as `result.json` says it."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    OOM = "oom"
    INTERRUPTED = "interrupted"


class Predictions(NamedTuple):
    """What a model said about a split, in the order of the split's file.

    `labels` and `predictions` have n entries (class numbers, or scores for a regression; `labels` is None
    where they are hidden), `probabilities` is n × classes, or None for a regression.
    """

    labels: Any
    predictions: Any
    probabilities: Any = None


@dataclass(frozen=True)
class Record:
    """A run's folder. Every file in it is written whole or not at all.

    Any method that writes raises UserError where the disk is full or the folder cannot be written.
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
        try:
            # First: a run killed from here on must not be continued from the earlier attempt.
            record.checkpoint_path.unlink(missing_ok=True)
            record._write_config(config)
            write_json(record.result_path, {**_begin(config), "overrides": list(overrides), **_process()})
            record.history_path.unlink(missing_ok=True)
            record.predictions_path.unlink(missing_ok=True)
            if record.adapter_dir.exists():
                shutil.rmtree(record.adapter_dir)
            remove_temporaries(folder)
        except OSError as error:
            raise write_error(folder, error) from error
        return record

    def reopen(self) -> None:
        """Begin again where an interrupted run stopped: status running in this process, the rest kept."""
        remove_temporaries(self.folder)
        self.update(status=Status.RUNNING, error=None, finished=None, **_process())

    def read(self) -> dict[str, Any]:
        """Return what `result.json` holds.

        Raises UserError where there is none, where it is damaged, or where a newer peftbench wrote it.
        """
        try:
            result = json.loads(self.result_path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"No run in {self.folder}: it has no result.json.") from error
        except OSError as error:
            raise UserError(f"Cannot read {self.result_path}: {error.strerror}.") from error
        except ValueError as error:
            raise self._damaged(self.result_path) from error
        schema = result.get("schema") if isinstance(result, dict) else None
        if not isinstance(schema, int):
            raise self._damaged(self.result_path)
        if schema > SCHEMA_VERSION:
            raise UserError(
                f"{self.result_path} was written by a newer peftbench (schema {schema}, this one reads up to "
                f"{SCHEMA_VERSION}). Upgrade peftbench."
            )
        if result.get("status") not in list(Status):
            raise self._damaged(self.result_path)
        return result

    def _damaged(self, path: Path) -> UserError:
        return UserError(f"{path} is damaged. Delete {self.folder} and run it again.")

    def config(self) -> dict[str, Any]:
        """Return the configuration the run was started with; raises UserError where it cannot be read."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError  # type: ignore[import-untyped]

        try:
            config = OmegaConf.to_container(OmegaConf.load(self.config_path), resolve=False)
        except OSError as error:
            raise UserError(f"Cannot read {self.config_path}: {error.strerror}.") from error
        except (YAMLError, OmegaConfBaseException, ValueError) as error:
            raise self._damaged(self.config_path) from error
        if not isinstance(config, dict):
            raise self._damaged(self.config_path)
        return {str(key): value for key, value in config.items()}

    def _write_config(self, config: Mapping[str, Any]) -> None:
        from omegaconf import OmegaConf

        with atomic_write(self.config_path) as file:
            file.write(OmegaConf.to_yaml(OmegaConf.create(plain(config))))

    def update(self, **fields: Any) -> None:
        """Set top-level fields of `result.json`; a field's old value is replaced, not merged into."""
        write_json(self.result_path, {**self.read(), **fields})

    def finish(self, status: Status = Status.FINISHED, **fields: Any) -> None:
        """Close the run with `status`, the time and whatever was measured, in one write."""
        self.update(**fields, status=status, finished=_now())

    def fail(self, status: Status, error: str, **fields: Any) -> None:
        """Close the run as failed, out of memory or interrupted, with the reason in words."""
        self.finish(status, **fields, error=error)

    def append_history(self, row: Mapping[str, Any]) -> None:
        """Add a row to the training curve; `step` is the optimizer step it belongs to."""
        line = (json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n").encode()
        try:
            with self.history_path.open("ab", buffering=0) as file:
                size = file.tell()
                try:
                    while line:
                        line = line[file.write(line) :]
                except OSError:
                    file.truncate(size)  # a full disk may have taken a part of the line
                    raise
        except OSError as error:
            raise write_error(self.history_path, error) from error

    def truncate_history(self, step: int) -> None:
        """Drop the rows after `step`, the checkpoint's, and whatever a killed writer left half-written."""
        kept = [row for row in self.history() if row.get("step", 0) <= step]
        with atomic_write(self.history_path) as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)

    def history(self) -> list[dict[str, Any]]:
        """Return the rows of the training curve; a line cut short by a killed writer is left out."""
        try:
            lines = self.history_path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"Cannot read {self.history_path}: {error.strerror}.") from error
        return [row for row in map(_json_object, lines) if row is not None]

    def write_predictions(self, splits: Mapping[str, Predictions]) -> None:
        """Write `predictions.csv`: split, index, label, prediction and one p0, p1, … a class.

        `index` counts the examples of a split from 0 in the order given; hidden labels stay empty. Raises
        ValueError where labels, predictions and probabilities of a split differ in length.
        """
        rows = [row for split, told in splits.items() for row in _prediction_rows(split, *told)]
        width = max((len(row) for row in rows), default=4)
        header = ["split", "index", "label", "prediction", *(f"p{number}" for number in range(width - 4))]
        with atomic_write(self.predictions_path) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(row + [None] * (width - len(row)) for row in rows)

    def read_predictions(self) -> dict[str, Predictions]:
        """Return the predictions of each split; raises UserError where the file is missing or damaged."""
        rows: dict[str, list[list[str]]] = {}
        try:
            with self.predictions_path.open(encoding="utf-8", newline="") as file:
                reader = csv.reader(file)
                width = len(next(reader, []))
                for row in reader:
                    if len(row) != width:
                        raise self._damaged(self.predictions_path)
                    rows.setdefault(row[0], []).append(row[2:])
            return {split: _parse_predictions(cells) for split, cells in rows.items()}
        except OSError as error:
            raise UserError(f"Cannot read {self.predictions_path}: {error.strerror}.") from error
        except (ValueError, csv.Error) as error:
            raise self._damaged(self.predictions_path) from error


def _begin(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "status": Status.RUNNING,
        "id": run_id(config),
        "experiment": config["experiment"],
        "method": config["method"]["name"],
        "task": config["task"]["name"],
        "model": config["model"]["name"],
        "seed": config["seed"],
        "started": _now(),
        "finished": None,
        "error": None,
    }


def _process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _prediction_rows(split: str, labels: Any, predictions: Any, probabilities: Any) -> list[list[Any]]:
    predictions = plain(predictions)
    labels = [None] * len(predictions) if labels is None else plain(labels)
    probabilities = [[]] * len(predictions) if probabilities is None else plain(probabilities)
    if not len(labels) == len(predictions) == len(probabilities):
        raise ValueError(
            f"split {split!r}: {len(labels)} labels, {len(predictions)} predictions and "
            f"{len(probabilities)} rows of probabilities"
        )
    examples = zip(labels, predictions, probabilities, strict=True)
    return [[split, index, label, prediction, *row] for index, (label, prediction, row) in enumerate(examples)]


def _parse_predictions(cells: list[list[str]]) -> Predictions:
    labels = [_number(row[0]) for row in cells]
    probabilities = [[float(cell) for cell in row[2:] if cell] for row in cells]
    return Predictions(
        None if all(label is None for label in labels) else labels,
        [_number(row[1]) for row in cells],
        probabilities if any(probabilities) else None,
    )


def _number(cell: str) -> int | float | None:
    if not cell:
        return None
    return int(cell) if cell.lstrip("-").isdigit() else float(cell)
