"""`peftbench train --help`: each setting that can be typed stands there with its value and a line of meaning."""

import pytest
from omegaconf import OmegaConf

from peftbench import cli
from peftbench.config.compose import compose
from peftbench.methods import METHODS

# settings of a run that are typed; of models and tasks those that are the same in each of them
GROUPS = ("method", "trainer", "measure", "logger", "seed_of")


@pytest.mark.parametrize(
    "overrides",
    [["logger=wandb"], *([f"method={name}"] for name in METHODS), ["model=local", "model.path=x"]],
)
def test_every_setting_has_its_meaning(capsys, overrides):
    assert cli.main(["train", *overrides, "--help"]) == 0
    lines = [line.split(None, 1) for line in capsys.readouterr().out.splitlines() if "=" in line]
    meanings = {words[0].partition("=")[0]: words[1] for words in lines if len(words) == 2}
    config = OmegaConf.to_container(compose(overrides), resolve=True)
    expected = {key for key in config if key not in (*GROUPS, "model", "task")}
    expected |= {
        f"{group}.{key}" for group in GROUPS for key in config[group] if key not in ("name", "recipe", "search")
    }
    expected |= {"model.dropout", "task.dir", "task.max_length"}
    assert not {key for key in expected if len(meanings.get(key, "")) < 5}


def test_values_are_those_of_the_line(capsys):
    assert cli.main(["train", "method=lora", "method.rank=3", "-h"]) == 0
    text = capsys.readouterr().out
    assert "method.rank=3 " in text and "method.bottleneck" not in text
    assert "={" not in text, "a group is no setting"
    assert "dimension r of the update" in text  # from the docstring of the method's config


def test_a_mistake_beside_it(capsys):
    assert cli.main(["train", "method=lorra", "--help"]) == 2
    assert "Did you mean lora?" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["digits", "hymenoptera", "cifar10", "cifar100", "image_folder", "camvid", "bccd"])
def test_a_task_of_images_shows_its_settings_and_none_of_texts(capsys, task):
    assert cli.main(["train", f"task={task}", "--help"]) == 0
    lines = [line.split(None, 1) for line in capsys.readouterr().out.splitlines() if line.startswith("task.")]
    meanings = {words[0].partition("=")[0]: words[1] for words in lines if len(words) == 2}
    assert {"task.dir", "task.image_size", "task.augment"} <= set(meanings) and "task.max_length" not in meanings
