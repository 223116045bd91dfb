"""Sizes that no machine holds are refused in one line, before anything of that size is made."""

import pytest
import torch
from tiny import ARCHITECTURES, tiny_model

from peftbench.backbones.load import blank_backbone
from peftbench.cli import main
from peftbench.config.schema import fill
from peftbench.errors import UserError
from peftbench.methods import build, find_sites, method_class

HUGE = 99_999_999_999_999
SIZES = [
    ("adapter", {"bottleneck": HUGE}),
    ("adapter", {"bottleneck": 10**30}),
    ("pfeiffer", {"bottleneck": HUGE}),
    ("parallel", {"bottleneck": HUGE}),
    ("compacter", {"bottleneck": HUGE}),
    ("compacter", {"rank": HUGE}),
    ("mam", {"bottleneck": HUGE}),
    ("mam", {"length": HUGE}),
    ("lora", {"rank": HUGE}),
    ("prefix", {"length": HUGE}),
    ("prefix", {"reparametrize": True, "mid_dim": HUGE}),
    ("prompt", {"length": HUGE}),
]


@pytest.mark.parametrize(("name", "settings"), SIZES, ids=lambda value: str(value))
def test_more_than_the_memory_holds(name, settings):
    config = fill(method_class(name).config_class, settings, "method")
    with pytest.raises(UserError, match=rf"method={name} of these sizes would train .* of memory here") as error:
        build(config, find_sites(tiny_model("bert")))
    assert "\n" not in str(error.value)


def test_shapes_alone_take_no_memory_and_can_still_be_too_many():
    sites = blank_backbone({"model_type": "bert", **ARCHITECTURES["bert"]}).sites
    kind = method_class("adapter").config_class
    with torch.device("meta"):
        method = build(kind(bottleneck=10**9), sites)
    assert sum(p.numel() for p in method.parameters()) == method.count(method.config, sites) > 10**11
    with pytest.raises(UserError, match="more than can be counted"):
        build(kind(bottleneck=10**30), sites)


def test_a_command_ends_with_2_and_one_line(tiny_model_dir, tiny_data_dir, tmp_path, capsys):
    splits = [f"task.splits.{name}={tiny_data_dir / 'opinions' / f'{name}.csv'}" for name in ("train", "validation")]
    line = ["train", "model=local", f"model.path={tiny_model_dir}", "task=text_file", *splits, "task.max_length=32"]
    assert main([*line, f"output_dir={tmp_path}", "device=cpu", "method=adapter", f"method.bottleneck={HUGE}"]) == 2
    err = capsys.readouterr().err
    assert "method=adapter of these sizes would train" in err and "should not have happened" not in err
    assert not list(tmp_path.rglob("result.json"))
