"""Damage is noticed: bits flipped at random places of each file, a folder of another name, records of version 1."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from peftbench.errors import UserError
from peftbench.runs.find import UNREADABLE, inspect_run
from peftbench.runs.record import Record
from peftbench.runs.result import Status
from peftbench.serving.load import load_run_model
from peftbench.training.checkpoint import load_checkpoint, save_checkpoint

VERSION_1 = Path(__file__).parent / "version1" / "lora-mrpc-minilm-s0-39d23cc9"
PLACES = 25


@pytest.fixture
def copied(tiny_run: Record, tmp_path: Path) -> Record:
    """A copy of a finished run that a test may damage."""
    return Record(shutil.copytree(tiny_run.folder, tmp_path / tiny_run.folder.name))


def use(record: Record, file: str) -> None:
    """Read what the file is read for."""
    if file.startswith("adapter"):
        load_run_model(record, torch.device("cpu"))
    elif file == "predictions.csv":
        record.predictions(record.read().evaluation("validation"))
    else:
        record.read()


def flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize(
    "file",
    ["result.json", "config.yaml", "predictions.csv", "adapter/adapter.safetensors", "adapter/adapter.json"],
)
def test_a_flipped_bit_anywhere_is_noticed(copied: Record, file: str) -> None:
    path, chance = copied.folder / file, random.Random(file)
    content = path.read_bytes()
    for _ in range(PLACES):
        path.write_bytes(flipped(content, chance))
        with pytest.raises(UserError) as caught:
            use(copied, file)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    path.write_bytes(content)
    use(copied, file)


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    path, chance = tmp_path / "checkpoint.pt", random.Random(0)
    state = {"trained": {"x": torch.arange(500.0)}, "steps": 3}
    save_checkpoint(path, state)
    shapes = {"x": torch.Size([500])}
    content = path.read_bytes()
    for _ in range(PLACES):
        path.write_bytes(flipped(content, chance))
        with pytest.raises(UserError, match="damaged"):
            load_checkpoint(path, shapes)
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(path, shapes)
    path.write_bytes(content)
    assert torch.equal(load_checkpoint(path, shapes)["trained"]["x"], state["trained"]["x"])


def test_a_damaged_run_is_listed_with_the_reason(copied: Record) -> None:
    copied.result_path.write_text(copied.result_path.read_text().replace('"accuracy": 0', '"accuracy": 1', 1))
    run = inspect_run(copied)
    assert run.status == UNREADABLE and "is damaged (it is not what was written)" in run.error


def test_a_folder_of_another_name_is_not_used(copied: Record) -> None:
    other = Record(copied.folder.rename(copied.folder.with_name("lora-text_file-local-s0-01d01d01")))
    with pytest.raises(UserError, match=f"holds the record of another run, {copied.folder.name}"):
        other.read()


def test_a_config_that_the_folder_is_not_named_by_is_not_used(tmp_path: Path) -> None:
    record = Record(shutil.copytree(VERSION_1, tmp_path / VERSION_1.name))
    text = record.config_path.read_text()
    assert record.config()["method"]["rank"] == 8
    record.config_path.write_text(text.replace("rank: 8", "rank: 4"))
    with pytest.raises(UserError, match="not the one that the folder is named by"):
        record.config()


def test_a_record_of_version_1_is_read() -> None:
    record = Record(VERSION_1)
    result = record.read()
    assert (result.status, result.method, result.seed, result.primary) == (Status.FINISHED, "lora", 0, "accuracy")
    assert result.metrics["validation"]["accuracy"] == 0.6838235294117647 and result.best_epoch == 1
    assert result.parameters.method == 73728 and result.time.per_epoch == [15.602201804000003]
    assert result.memory.host_peak == 1118973952 and not result.latency and result.latency.error is None
    assert (result.environment.precision, result.environment.device_type) == ("fp32", "cpu")
    predictions = record.predictions(result.evaluation("validation"))
    assert len(predictions.labels) == 408 and predictions.labels[:2] == [1, 0]
    assert len(record.history()) == 5 and record.config()["seed"] == 0


@pytest.mark.parametrize("part", [{"metrics": None}, {"parameters": 3}, {"time": {"train": "long"}}, {"status": "odd"}])
def test_an_odd_record_of_version_1_is_named_with_the_reason(tmp_path: Path, part: dict) -> None:
    record = Record(shutil.copytree(VERSION_1, tmp_path / VERSION_1.name))
    record.result_path.write_text(json.dumps({**json.loads(record.result_path.read_text()), **part}))
    with pytest.raises(UserError, match=r"result\.json is damaged \(.+\)"):
        record.read()
