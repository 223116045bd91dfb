"""`params` counts the head that each task and method has, and refuses a model that does not read the task."""

import json

import pytest

from peftbench.cli import main

VISION = ["model=dinov2_small_focus"]


def heads(capsys, *overrides):
    assert main(["params", *overrides, "--json"]) == 0
    return [row["parameters"]["head"] for row in json.loads(capsys.readouterr().out)]


def test_each_row_has_the_head_of_its_task_and_method(capsys):
    width, layers, classes = 384, 4, 11
    linear = 2 * layers * width + (layers * width + 1) * classes  # batch norm, then one map
    first, second = heads(capsys, *VISION, "task=camvid", "method=lora", "task.head_layers=4,1")
    assert (first, second) == (linear, 2 * width + (width + 1) * classes)
    assert heads(capsys, *VISION, "task=hymenoptera", "method=lora,vit_adapter") == [
        (2 * width + 1) * 2,  # of the class token and the patches' mean
        (4 * width + 1) * 2,  # of four maps' means
    ]


def test_classes_that_only_the_data_tell_are_said(capsys):
    assert main(["params", *VISION, "task=cifar100", "method=lora"]) == 0
    assert "cifar100: only the data tell its classes; the head is counted with 2" in capsys.readouterr().out
    assert main(["params", *VISION, "task=hymenoptera", "method=lora"]) == 0
    assert "only the data" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task=camvid", "model=minilm"], "task=camvid has images, and model=minilm reads texts"),
        (["task=stsb_binary", *VISION], "task=stsb_binary has texts, and model=dinov2_small_focus reads images"),
    ],
)
def test_a_model_that_does_not_read_the_task(capsys, overrides, said):
    assert main(["params", *overrides]) == 2
    assert said in capsys.readouterr().err
