"""What an offline wandb run holds on disk: config, curve, summary, and how the run ended."""

import json
import struct
from pathlib import Path

import pytest
from wandb.proto.wandb_internal_pb2 import Record as WandbRecord

from peftbench.errors import PeftbenchError
from peftbench.records.record import Record

_BLOCK, _HEADER = 32768, 7


def _read(path: Path) -> list[WandbRecord]:
    """Read wandb's transaction log: 32 KiB blocks of (checksum, length, type) and a chunk of a record."""
    content, at, whole, records = path.read_bytes(), _HEADER, b"", []
    while at + _HEADER <= len(content):
        if _BLOCK - at % _BLOCK < _HEADER:
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind in (1, 4):  # a whole record, or the last chunk of one
            record = WandbRecord()
            record.ParseFromString(whole)
            records.append(record)
            whole = b""
    return records


def _only_log(record: Record) -> list[WandbRecord]:
    (path,) = record.folder.glob("wandb/offline-run-*/run-*.wandb")
    return _read(path)


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


def test_a_run_is_mirrored_offline_without_a_key(train_tiny, no_key):
    record = train_tiny("opinions", "method=lora", "logger=wandb", "seed=11", "force=true")
    result = record.read()
    log = _only_log(record)
    (run,) = [r.run for r in log if r.HasField("run")]
    assert (run.display_name, run.run_group, run.job_type) == (result["id"], "opinions", "lora")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["method"]["rank"] == 8 and config["seed"] == 11
    rows = [
        {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in r.history.item}
        for r in log
        if r.HasField("history")
    ]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert losses == [row["loss"] for row in record.history() if "lr" in row]
    scores = [row["validation/accuracy"] for row in rows if "validation/accuracy" in row]
    assert scores[-1] == result["metrics"]["validation"]["accuracy"] and len(scores) == 2
    summary = [i for r in log if r.HasField("summary") for i in r.summary.update]
    parameters = [json.loads(i.value_json) for i in summary if i.key == "parameters"]
    assert parameters[-1]["method"] == result["parameters"]["method"]
    assert [r.exit.exit_code for r in log if r.HasField("exit")] == [0]


def test_a_failed_run_shows_as_failed(train_tiny, no_key, monkeypatch):
    made: list[Record] = []
    create = Record.create
    monkeypatch.setattr(Record, "create", staticmethod(lambda *args: made.append(create(*args)) or made[-1]))
    with pytest.raises(PeftbenchError, match="at step"):
        train_tiny("opinions", "method=full", "trainer.lr=1e38", "trainer.clip=null", "logger=wandb")
    assert [r.exit.exit_code for r in _only_log(made[0]) if r.HasField("exit")] == [1]
    assert made[0].read()["status"] == "failed"


def test_disabled_leaves_nothing(train_tiny):
    record = train_tiny("opinions", "method=lora", "logger=wandb", "logger.mode=disabled", "seed=13")
    assert not (record.folder / "wandb").exists()
