"""The wandb sweep file: what wandb's agent makes of it is a command line that `peftbench train` takes."""

import pytest
import yaml
from conftest import ROOT
from wandb_log import read_logs

from peftbench.config.compose import compose
from peftbench.config.schema import resolve

FILE = ROOT / "scripts" / "wandb_sweep.yaml"
SWEEP = yaml.safe_load(FILE.read_text(encoding="utf-8"))


def command_line(sampled: dict) -> list[str]:
    """Put sampled values into the command as `Agent._command_run` of wandb does."""
    # seconds to import, which a worker that collects this file need not spend
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config

    words = create_sweep_command(list(load_sweep_config(str(FILE))["command"]))
    values = create_sweep_command_args({"args": {key: {"value": value} for key, value in sampled.items()}})
    values["env"] = ["/usr/bin/env"]
    line: list[str] = []
    for word in words:
        line += values[word[2:-1]] if word.startswith("${") else [word]
    return line


def corners() -> list[dict]:
    """The ends of every parameter's range."""
    ranges = {
        key: (value["values"][0], value["values"][-1]) if "values" in value else (value["min"], value["max"])
        for key, value in SWEEP["parameters"].items()
    }
    return [{key: both[end] for key, both in ranges.items()} for end in (0, 1)]


@pytest.mark.parametrize("sampled", [*corners(), {"method.rank": 8, "trainer.lr": 1.2345678e-05}])
def test_the_agents_command_composes(sampled):
    line = command_line(sampled)
    assert line[:3] == ["/usr/bin/env", "peftbench", "train"]
    config = resolve(compose(line[3:]))
    assert config.logger.name == "wandb" and config.force
    assert config.method.rank == sampled["method.rank"] and config.trainer.lr == sampled["trainer.lr"]


def test_the_metric_is_one_that_a_run_logs(train_tiny):
    overrides = command_line({"method.rank": 2, "trainer.lr": 0.01})[3:]
    record = train_tiny("opinions", *overrides, "logger.mode=offline")
    (log,) = read_logs(record.folder)
    assert SWEEP["metric"]["goal"] == "maximize"
    metric = SWEEP["metric"]["name"]
    assert log.summary[metric] == record.read().metrics["validation"]["accuracy"]
    assert log.run.run_group == "wandb_sweep" and log.config["method"]["rank"] == 2
