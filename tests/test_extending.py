"""docs/extending.md, section by section: its files are written, its commands run, on a copy of the repository."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from conftest import ROOT
from tiny import headed, method_configs, tiny_batch
from transformers import RobertaPreLayerNormConfig, RobertaPreLayerNormForSequenceClassification

from peftbench.backbones import recognise
from peftbench.methods import METHODS, build
from peftbench.methods.adapter import AdapterConfig
from peftbench.methods.guard import check_method
from peftbench.methods.lora import LoraConfig

TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
INSERTED = re.compile(r"# (\S+), behind: (.+)")


def apply(body: str, folder: Path) -> list[str]:
    """Write a section's files below `folder`, and return its commands."""
    commands: list[str] = []
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```", body, re.MULTILINE | re.DOTALL):
        first, _, rest = block.partition("\n")
        if kind == "bash":
            commands += block.splitlines()
        elif kind == "csv":
            (folder / "reviews.csv").write_text(block, encoding="utf-8")
        elif insertion := INSERTED.fullmatch(first):
            path = folder / insertion[1]
            text = path.read_text(encoding="utf-8")
            assert text.count(f"\n{insertion[2]}\n") == 1, f"{insertion[2]!r} stands once in {insertion[1]}"
            path.write_text(text.replace(f"\n{insertion[2]}\n", f"\n{insertion[2]}\n{rest}"), encoding="utf-8")
        else:
            path = folder / first.removeprefix("# ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(rest, encoding="utf-8")
    return commands


def started(arguments: list[str], **options: Any) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], **options)


def copy_repository(folder: Path) -> None:
    for name in ("peftbench", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, folder / name)  # compiled files too: they are used where their source is the same


@pytest.mark.long
@pytest.mark.parametrize("title", SECTIONS)
def test_the_example_works(title, tmp_path, tiny_model_dir, tiny_data_dir):
    copy_repository(tmp_path)
    commands = apply(SECTIONS[title], tmp_path)
    assert commands
    installed = tmp_path / "installed"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(installed)]),
        "PIP_TARGET": str(installed),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's way of writing --no-build-isolation
    }
    # the example's own choices, on the tests' tiny model and data
    tiny = f"model=local model.path='{tiny_model_dir}' device=cpu trainer.epochs=1 measure.latency=false"
    opinions = " ".join(
        f"task.splits.{name}='{tiny_data_dir / 'opinions' / name}.csv'" for name in ("train", "validation")
    )
    for command in commands:
        if command.startswith(("peftbench train", "peftbench sweep")):
            data = "" if "task=" in command else f"task=text_file {opinions}"
            command = f"{command} {tiny} task.max_length=16 {data}"
        words = ["-m", *shlex.split(command.replace("$PWD", str(tmp_path)))]
        run = forked.run if words[1] == "peftbench" else started
        ran = run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"


def namespace_of(folder: Path, path: str) -> dict:
    namespace: dict = {"__name__": Path(path).stem}
    exec(compile((folder / path).read_text(encoding="utf-8"), path, "exec", dont_inherit=True), namespace)
    return namespace


@pytest.fixture
def prelayernorm(tmp_path, monkeypatch):
    apply(SECTIONS["A layout"], tmp_path)
    layout = namespace_of(tmp_path, "peftbench/backbones/layouts/prelayernorm.py")["LAYOUT"]
    monkeypatch.setattr(recognise, "LAYOUTS", (*recognise.LAYOUTS, layout))
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


def test_the_layout_serves_every_method(prelayernorm):
    for config in (method_configs() | {"lora": LoraConfig(rank=2), "adapter": AdapterConfig(bottleneck=4)}).values():
        check_method(build(config, prelayernorm.sites), prelayernorm, 32)


def test_the_method_folds(prelayernorm, tmp_path):
    apply(SECTIONS["A method"], tmp_path)
    known = dict(METHODS)
    try:
        namespace = namespace_of(tmp_path, "plugin/peftbench_scale.py")
        scale = build(namespace["ScaleConfig"](start=0.7), prelayernorm.sites)
    finally:
        METHODS.clear()
        METHODS.update(known)
    with scale.on(prelayernorm.sites), torch.no_grad():
        beside = prelayernorm.model(**tiny_batch()).logits
        scale.merge()
        torch.testing.assert_close(prelayernorm.model(**tiny_batch()).logits, beside, rtol=1e-4, atol=1e-5)


def test_a_method_that_cannot_be_loaded_is_named_in_one_line(tmp_path):
    installed = tmp_path / "scale-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: scale\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[peftbench.methods]\nscale = scale\n")
    (tmp_path / "scale.py").write_text("import nowhere\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "peftbench", "params", "method=lora", "model=bert_base"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "cannot load the method scale (scale): No module named 'nowhere'" in ran.stderr
    assert "Traceback" not in ran.stderr
