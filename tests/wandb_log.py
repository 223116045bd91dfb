"""What an offline wandb run holds on disk, read without wandb: it has no reader of its own."""

import json
import struct
import time
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record as WandbRecord

_BLOCK, _HEADER = 32768, 7


class WandbLog:
    """The transaction log of one offline run: `run`, `config`, `rows`, `summary`, `exit_code`, `artifacts`."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        records = _finished(path)
        (self.run,) = [r.run for r in records if r.HasField("run")]
        self.config = {item.key: json.loads(item.value_json) for item in self.run.config.update}
        self.rows = [_values(r.history.item) for r in records if r.HasField("history")]
        self.summary: dict[str, Any] = {}
        for record in records:
            if record.HasField("summary"):
                self.summary |= _values(record.summary.update)
        (self.exit_code,) = [r.exit.exit_code for r in records if r.HasField("exit")]
        self.artifacts = [r.artifact for r in records if r.HasField("artifact")]


def read_logs(folder: Path) -> list[WandbLog]:
    """Return the offline runs anywhere below a folder, in the order they began."""
    logs = [WandbLog(path) for path in folder.rglob("offline-run-*/run-*.wandb")]
    return sorted(logs, key=lambda log: log.run.start_time.ToNanoseconds())


def _values(items: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        inner = values
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return values


def _finished(path: Path) -> list[WandbRecord]:
    """Read a run's log when it has its end: `finish` may return before wandb's own process has written all."""
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        records = _read(path)
        if any(record.HasField("exit") for record in records):
            return records
        time.sleep(0.05)
    raise TimeoutError(f"{path} has no end")


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
