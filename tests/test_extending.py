"""The examples of docs/extending.md work as they stand there."""

import os
import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from tiny import headed, tiny_batch
from transformers import RobertaPreLayerNormConfig, RobertaPreLayerNormForSequenceClassification

from peftbench.backbones import sites as sites_module
from peftbench.methods import METHODS, build
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.guard import check_method
from peftbench.methods.lora import LoraConfig

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)


def example(language, start=""):
    return next(text for kind, text in BLOCKS if kind == language and text.startswith(start))


@pytest.fixture
def package(tmp_path):
    """A folder on PYTHONPATH as an installed package with a method of its own looks there."""
    (tmp_path / "scale.py").write_text(example("python", "# scale.py"))
    installed = tmp_path / "scale-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: scale\nVersion: 1.0\n")
    entry = example("toml").splitlines()[1].replace('"', "")
    (installed / "entry_points.txt").write_text(f"[peftbench.methods]\n{entry}\n")
    group = tmp_path / "conf" / "method"
    group.mkdir(parents=True)
    (group / "scale.yaml").write_text(example("yaml", "# method/scale.yaml"))
    return tmp_path


def peftbench(folder, *argv):
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "peftbench", *argv]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_a_method_outside_the_package_trains(package, tiny_model_dir, tiny_data_dir):
    chosen = example("bash").split()[2:]
    chosen = [word.replace("/home/me/conf", f"{package}/conf") for word in chosen]
    data = [f"task.splits.{name}={tiny_data_dir}/opinions/{name}.csv" for name in ("train", "validation")]
    data += ["task=text_file", "task.max_length=32", "model=local", f"model.path={tiny_model_dir}"]
    short = ["trainer.epochs=1", "measure.latency=false", "device=cpu", "threads=1"]
    done = peftbench(package, "train", *chosen, *data, *short)
    assert done.returncode == 0, done.stderr
    assert list(package.glob("outputs/*/scale-*/adapter/adapter.safetensors"))


def test_a_method_that_cannot_be_loaded_is_named_in_one_line(package):
    (package / "scale.py").write_text("import nowhere\n")
    done = peftbench(package, "params", "method=lora", "model=bert_base")
    assert done.returncode == 2
    assert "cannot load the method scale (scale): No module named 'nowhere'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def prelayernorm(monkeypatch):
    namespace: dict = {}
    exec(example("python", "# peftbench/backbones/layouts/"), namespace)
    monkeypatch.setattr(sites_module, "LAYOUTS", (*sites_module.LAYOUTS, namespace["LAYOUT"]))
    torch.manual_seed(0)
    config = RobertaPreLayerNormConfig(
        vocab_size=120,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=66,
        initializer_range=0.2,
    )
    return headed(RobertaPreLayerNormForSequenceClassification(config).eval())


def test_an_architecture_is_one_file(prelayernorm, monkeypatch):
    for name, method in METHODS.items():
        config = {"lora": LoraConfig(rank=2), "adapter": AdapterConfig(bottleneck=4)}.get(name, method.config_class())
        check_method(build(config, prelayernorm.sites), prelayernorm, 32)


def test_the_method_folds(prelayernorm):
    namespace: dict = {"__name__": "scale"}
    known = dict(METHODS)
    try:
        exec(compile(example("python", "# scale.py"), "scale.py", "exec", dont_inherit=True), namespace)
        scale = build(namespace["ScaleConfig"](start=0.7), prelayernorm.sites)
    finally:
        METHODS.clear()
        METHODS.update(known)
    with scale.on(prelayernorm.sites), torch.no_grad():
        beside = prelayernorm.model(**tiny_batch()).logits
        scale.merge()
        torch.testing.assert_close(prelayernorm.model(**tiny_batch()).logits, beside, rtol=1e-4, atol=1e-5)
