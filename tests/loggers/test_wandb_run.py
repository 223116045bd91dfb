"""What an offline wandb run holds on disk: config, curve, summary, and how the run ended."""

import os
from dataclasses import replace

import pytest
from omegaconf import OmegaConf
from wandb_log import read_logs

from peftbench.config.schema import resolve
from peftbench.errors import PeftbenchError, UserError
from peftbench.loggers.wandb_run import log_measured
from peftbench.runs.record import Record
from peftbench.runs.result import Section

SETTING = {"batch": 1, "length": 8, "ratio": 1.25, "ratio_low": 1.2, "ratio_high": 1.3}


@pytest.fixture(autouse=True)
def no_key(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


@pytest.fixture
def created(monkeypatch):
    """The records that are created, also those of runs that fail."""
    made: list[Record] = []
    create = Record.create
    monkeypatch.setattr(Record, "create", staticmethod(lambda *args: made.append(create(*args)) or made[-1]))
    return made


def test_a_run_is_mirrored_offline_without_a_key(train_tiny):
    record = train_tiny("opinions", "method=lora", "logger=wandb", "seed=11", "force=true")
    result = record.read()
    (log,) = read_logs(record.folder)
    assert (log.run.display_name, log.run.run_group, log.run.job_type) == (result.id, "opinions", "lora")
    assert log.config["method"]["rank"] == 8 and log.config["seed"] == 11
    losses = [row["train/loss"] for row in log.rows if "train/loss" in row]
    assert losses == [row["loss"] for row in record.history() if "lr" in row]
    scores = [row["validation/accuracy"] for row in log.rows if "validation/accuracy" in row]
    assert scores[-1] == result.metrics["validation"]["accuracy"] and len(scores) == 2
    assert log.summary["validation/accuracy"] == scores[-1]
    assert {"started": result.started, "metrics": result.metrics, "latency": None}.items() <= log.summary.items()
    assert log.summary["figures/share"] == 100 * result.parameters.share_method
    assert log.summary["figures/trained"] == result.parameters.method
    assert "figures/latency" not in log.summary  # not measured
    assert log.exit_code == 0


def test_a_failed_run_shows_as_failed_and_says_why(train_tiny, created):
    with pytest.raises(PeftbenchError, match="at step"):
        train_tiny("opinions", "method=full", "trainer.lr=1e38", "trainer.clip=null", "logger=wandb")
    (log,) = read_logs(created[0].folder)
    assert log.exit_code == 1
    result = created[0].read()
    assert result.status == "failed" and log.summary["error"] == result.error


def test_a_continued_run_goes_on_with_its_wandb_run(train_tiny, created, monkeypatch):
    line = ["opinions", "method=lora", "logger=wandb", "logger.mode=offline", "seed=17"]
    with monkeypatch.context() as patch:
        patch.setattr(Record, "write_predictions", lambda *args: os.kill(os.getpid(), 2))
        with pytest.raises(KeyboardInterrupt):
            train_tiny(*line)
    record = train_tiny(*line)
    first, second = read_logs(record.folder)
    assert len(created) == 1 and (first.exit_code, second.exit_code) == (1, 0)
    # what makes `wandb sync` append the second to the first
    assert first.run.run_id == second.run.run_id and second.run.resume
    assert second.summary["resumed_at_step"] == record.history()[-1]["step"]


def test_what_is_measured_later_reaches_the_wandb_run(train_tiny):
    record = train_tiny("opinions", "method=lora", "logger=wandb", "seed=19")
    record.update(latency=Section({"settings": [SETTING]}))
    config = resolve(OmegaConf.create(record.config()))
    log_measured(config, record)
    trained, measured = read_logs(record.folder)
    assert measured.run.run_id == trained.run.run_id and measured.run.resume and measured.exit_code == 0
    assert measured.summary["figures/latency"] == 1.25
    assert measured.summary["latency"] == {"settings": [SETTING]}

    plain = train_tiny("opinions", "method=lora", "seed=23")
    log_measured(replace(config, seed=23), plain)
    assert not (plain.folder / "wandb").exists()


def test_a_key_that_is_none_is_refused_with_the_way_around_it(train_tiny, created, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(UserError, match=r"logger=wandb: .*; logger\.mode=offline needs no account"):
        train_tiny("opinions", "method=lora", "logger=wandb", "seed=29")
    assert created[0].read().status == "failed"


def test_disabled_leaves_nothing(train_tiny):
    record = train_tiny("opinions", "method=lora", "logger=wandb", "logger.mode=disabled", "seed=13")
    assert not (record.folder / "wandb").exists()
