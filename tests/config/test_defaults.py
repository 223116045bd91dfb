"""Defaults that stand in a config file and in a dataclass agree: a notebook builds what the runner builds."""

from dataclasses import MISSING, fields

import pytest

from peftbench.config.fill import fill
from peftbench.config.groups import read_group
from peftbench.config.schema import LoggerConfig, MeasureConfig, TrainerConfig
from peftbench.config.task import TextTaskConfig
from peftbench.methods import METHODS


def defaults(cls):
    return {
        field.name: field.default if field.default is not MISSING else field.default_factory()
        for field in fields(cls)
        if field.default is not MISSING or field.default_factory is not MISSING
    }


def options(group):
    return {option.pop("name"): option for option in read_group(group)}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_method(name):
    config = options("method")[name]
    recipe, _, _ = config.pop("recipe"), config.pop("description"), config.pop("search")
    assert {"lr", "epochs"} <= set(recipe)
    cls = METHODS[name].config_class
    assert fill(cls, config, "method") == cls()
    assert set(config) == {field.name for field in fields(cls)}


@pytest.mark.parametrize(
    ("cls", "group", "option"), [(MeasureConfig, "measure", "default"), (LoggerConfig, "logger", "wandb")]
)
def test_a_group(cls, group, option):
    config = options(group)[option]
    assert {key: config[key] for key in defaults(cls) if key in config} == defaults(cls)


def test_the_trainer_s_defaults_stand_in_its_file_alone():
    config = options("trainer")["default"]
    known = defaults(TrainerConfig)
    assert {key: config[key] for key in known if key in config} == known
    assert {field.name for field in fields(TrainerConfig)} == set(config) - {"description"}


def test_a_task():
    from peftbench.config.compose import compose

    assert compose([]).task.max_length == defaults(TextTaskConfig)["max_length"]
