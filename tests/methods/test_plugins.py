"""A method outside the package: one file named by an entry point, and one YAML found through hydra.searchpath."""

import os
import subprocess
import sys

import pytest

METHOD = """
from dataclasses import dataclass

import torch
from torch import nn

from peftbench.methods.base import Method, check_at_least


@dataclass(frozen=True)
class ScaleConfig:
    start: float = 1.0

    def __post_init__(self):
        check_at_least("start", self.start, 0)


class Scale(Method, name="scale"):
    config_class = ScaleConfig

    def __init__(self, config, sites):
        super().__init__(config, sites)
        scales = [nn.Parameter(torch.full((sites.hidden,), config.start)) for _ in sites.layers]
        self.scales = nn.ParameterList(scales)

    def hook(self, sites):
        for site, scale in zip(sites.at("ffn.residual"), self.scales, strict=True):
            yield site.replace(lambda x, scale=scale: x * scale)

    @staticmethod
    def count(config, sites):
        return len(sites.layers) * sites.hidden
"""


@pytest.fixture
def plugin(tmp_path):
    """A folder on PYTHONPATH as an installed distribution looks there."""
    (tmp_path / "scale_method.py").write_text(METHOD)
    installed = tmp_path / "scale_method-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: scale-method\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[peftbench.methods]\nscale = scale_method\n")
    group = tmp_path / "conf" / "method"
    group.mkdir(parents=True)
    (group / "scale.yaml").write_text(
        "# Scales what the feed-forward part adds.\nname: scale\nstart: 1.0\nrecipe: {lr: 1e-2}\n"
    )
    return tmp_path


def peftbench(plugin, *argv):
    environment = {**os.environ, "PYTHONPATH": f"{plugin}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "peftbench", *argv]
    return subprocess.run(command, cwd=plugin, env=environment, capture_output=True, text=True, timeout=300)


def test_a_method_outside_the_package_trains(plugin, tiny_model_dir, tiny_data_dir):
    files = [f"task.splits.{name}={tiny_data_dir}/opinions/{name}.csv" for name in ("train", "validation")]
    done = peftbench(
        plugin,
        "train",
        "method=scale",
        "method.start=0.5",
        f"hydra.searchpath=[file://{plugin}/conf]",
        "model=local",
        f"model.path={tiny_model_dir}",
        "task=text_file",
        *files,
        *(
            "task.max_length=32",
            "trainer.epochs=1",
            "trainer.lr=0.01",
            "measure.latency=false",
            "device=cpu",
            "threads=1",
        ),
    )
    assert done.returncode == 0, done.stderr
    assert list(plugin.glob("outputs/*/scale-*/adapter/adapter.safetensors"))


def test_a_plugin_that_cannot_be_loaded_is_named_in_one_line(plugin):
    (plugin / "scale_method.py").write_text("import nowhere\n")
    done = peftbench(plugin, "params", "method=lora", "model=bert_base")
    assert done.returncode == 2
    assert "cannot load the method scale (scale_method): No module named 'nowhere'" in done.stderr
    assert "Traceback" not in done.stderr
