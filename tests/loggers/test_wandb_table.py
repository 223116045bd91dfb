"""What a table, and a whole sweep, leave in offline wandb runs: enough for a later `wandb sync`."""

import json
import subprocess
import sys
from base64 import b64encode
from hashlib import md5
from pathlib import Path

import pytest
import wandb
from made_table import made_table
from wandb_log import WandbLog, read_logs

from peftbench.cli import main
from peftbench.config.schema import LoggerConfig
from peftbench.errors import UserError
from peftbench.loggers.wandb_table import log_table
from peftbench.tables.export.formats import TEXTS, write_table

OFFLINE = LoggerConfig("wandb", mode="offline")
PLOTS = {"plots/score-by-share", "plots/score-by-latency", "plots/learning-curves"}

SWEEP = """
title: Tiny
base: [experiment=tiny, model=local, model.path={model}, task=text_file, task.max_length=32, {splits}
       trainer.epochs=1, trainer.batch_size=8, device=cpu, threads=1, measure.latency=false, output_dir={outputs}]
seeds: 2
baseline: head
columns: [share, accuracy]
rows:
  - label: head
    overrides: [method=head]
  - label: LoRA
    overrides: [method=lora, trainer.lr=1e30, trainer.clip=null]
"""


def logged_table(log: WandbLog) -> dict:
    """The wandb Table of a run, as its file has it."""
    (entry,) = [row["table"] for row in log.rows if "table" in row]
    assert entry["_type"] == "table-file"
    return json.loads((log.folder / "files" / entry["path"]).read_text())


def logged_images(log: WandbLog) -> dict[str, bytes]:
    images = {key: value for row in log.rows for key, value in row.items() if key.startswith("plots/")}
    return {key: (log.folder / "files" / value["path"]).read_bytes() for key, value in images.items()}


def artifact_files(log: WandbLog) -> dict[str, Path]:
    """Name → the copy that a later sync would upload, of the table's artifact; checked against its digest."""
    (artifact,) = [artifact for artifact in log.artifacts if artifact.type == "table"]
    files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    for entry in artifact.manifest.contents:
        content = files[entry.path].read_bytes()
        assert entry.digest == b64encode(md5(content).digest()).decode()
    return files


def test_a_table_is_logged_whole(tmp_path):
    table = made_table()
    files = write_table(table, tmp_path, [name for name in (*TEXTS, "png", "svg") if name != "html"])
    written = {path.name: path.read_bytes() for path in files}
    log_table(table, files, OFFLINE, "lab")
    for path in files:
        path.write_text("made anew by a later sweep")

    (log,) = read_logs(tmp_path)
    assert (log.run.display_name, log.run.run_group, log.run.job_type) == ("table lab/methods", "lab", "table")
    assert log.exit_code == 0 and log.config["seeds"] == [0, 1, 2]

    shown = logged_table(log)
    rows = [dict(zip(shown["columns"], row, strict=True)) for row in shown["data"]]
    assert [row["row"] for row in rows] == [row.label for row in table.rows]
    full, adapter, _, prefix, *_ = rows
    assert (full["accuracy"], full["accuracy sd"], full["accuracy lab"]) == (86.0, 1.0, 84.0)
    assert adapter["accuracy verdict"] == "does not hold" and adapter["difference low"] == -7.9
    assert set(prefix.values()) == {prefix["row"], None}
    assert "memory" not in shown["columns"]  # which no row has

    assert set(logged_images(log)) == PLOTS
    assert logged_images(log)["plots/learning-curves"] == written["learning-curves.png"]
    kept = artifact_files(log)
    assert {name: path.read_bytes() for name, path in kept.items()} == written
    assert all(path.is_relative_to(tmp_path) for path in kept.values())


def test_a_table_that_cannot_be_logged_shows_as_failed(tmp_path):
    file = tmp_path / "table.md"
    file.write_text("a table")
    with pytest.raises(ValueError, match="gone.md"):
        log_table(made_table(), [file, tmp_path / "gone.md"], OFFLINE, "lab")
    (log,) = read_logs(tmp_path)
    assert log.exit_code == 1


def test_a_table_that_wandb_refuses_is_one_line(tmp_path, monkeypatch):
    def refuse(*arguments, **more):
        raise wandb.errors.CommError("no room\nfor tables")

    file = tmp_path / "table.md"
    file.write_text("a table")
    monkeypatch.setattr(wandb.Artifact, "add_file", refuse)
    with pytest.raises(UserError, match=r"^logger=wandb: no room; logger\.mode=offline needs no account$"):
        log_table(made_table(), [file], OFFLINE, "lab")
    (log,) = read_logs(tmp_path)
    assert log.exit_code == 1


@pytest.mark.long
@pytest.mark.usefixtures("shared_process")
def test_all_of_a_sweep_is_one_group_that_can_be_synced_later(tmp_path, tiny_model_dir, tiny_data_dir):
    conf, outputs = tmp_path / "conf", tmp_path / "outputs"
    (conf / "table").mkdir(parents=True)
    files = {name: tiny_data_dir / "opinions" / f"{name}.csv" for name in ("train", "validation", "test")}
    splits = " ".join(f"task.splits.{name}={path}," for name, path in files.items())
    (conf / "table" / "tiny.yaml").write_text(SWEEP.format(model=tiny_model_dir, splits=splits, outputs=outputs))
    line = ["sweep", "table=tiny", f"hydra.searchpath=[file://{conf}]", "logger=wandb", "logger.mode=offline"]
    assert main(line) == 1

    logs = read_logs(outputs)
    assert {log.run.run_group for log in logs} == {"tiny"}
    ended = [(log.run.job_type, log.config.get("seed"), log.exit_code) for log in logs]
    assert ended == [("head", 0, 0), ("head", 1, 0), ("lora", 0, 1), ("lora", 1, 1), ("table", None, 0)]
    assert len({log.run.run_id for log in logs}) == 5
    assert all("the loss became" in log.summary["error"] for log in logs if log.exit_code)

    table = logs[-1]
    accuracy = [log.summary["validation/accuracy"] for log in logs[:2]]
    shown = logged_table(table)
    (head, lora) = [dict(zip(shown["columns"], row, strict=True)) for row in shown["data"]]
    assert head["accuracy"] == pytest.approx(100 * sum(accuracy) / 2) and lora.get("accuracy") is None
    folder = outputs / "tiny" / "tables" / "tiny"
    assert set(artifact_files(table)) == {path.name for path in folder.iterdir() if path.is_file()}
    assert set(logged_images(table)) == {f"plots/{path.stem}" for path in folder.glob("*.png")}

    # wandb's own command finds every one of them where the README says they lie
    sync = [sys.executable, "-m", "wandb", "sync", "--dry-run", *map(str, outputs.glob("*/**/wandb/offline-run-*"))]
    answer = subprocess.run(sync, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Would sync 5 run(s)" in answer.stdout + answer.stderr
