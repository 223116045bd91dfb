"""On a CUDA device: the scores of the CPU in fp32, bf16 by default, going on from a checkpoint, device memory."""

import json

import pytest
import torch
from dense_data import write_detection, write_segmentation, write_tiny_dinov2
from tiny import method_configs

from peftbench.cli import main
from peftbench.runs.record import Record

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("method", sorted(method_configs()))
def test_every_method_trains_in_bf16(train_tiny, tiny_method, method):
    result = train_tiny("opinions", *tiny_method(method), "device=cuda", "trainer.precision=auto", "seed=21").read()
    assert result.environment.precision == "bf16" and result.memory.device_peak > 0
    assert result.metrics["validation"]["loss"] < 1


def test_fp32_agrees_with_the_cpu(train_tiny):
    changes = ("method=lora", "model.dropout=0.0", "trainer.precision=fp32", "seed=22")
    cpu = train_tiny("opinions", *changes, "experiment=cpu", "device=cpu").read()
    cuda = train_tiny("opinions", *changes, "experiment=cuda", "device=cuda").read()
    assert cuda.metrics["validation"]["loss"] == pytest.approx(cpu.metrics["validation"]["loss"], rel=1e-2)


def test_what_frozen_layers_give_is_kept_in_bf16(train_tiny):
    lines = ("method=pfeiffer", "method.layers=1", "model.dropout=0.0", "trainer.precision=bf16", "device=cuda")
    plain, kept = (
        train_tiny("opinions", *lines, f"trainer.cache_frozen={keeps}", f"experiment=kept-{keeps}").read()
        for keeps in ("false", "true")
    )
    assert kept.metrics["validation"]["loss"] == pytest.approx(plain.metrics["validation"]["loss"], rel=0.03)


@pytest.mark.parametrize(
    "method", ["full", "lora", "adaptformer", "vpt", "ssf", "convpass", "fact", "vit_adapter method.interactions=1"]
)
def test_image_methods_train_in_bf16_and_score_on_the_cpu_as_there(method, tmp_path, capsys):
    data, model = write_segmentation(tmp_path / "data"), write_tiny_dinov2(tmp_path / "tiny-dinov2")
    record = _trained(
        tmp_path, capsys, "segmentation", data, model, *f"method={method}".split(), "trainer.precision=auto"
    )
    result = record.read()
    assert result.environment.precision == "bf16" and result.memory.device_peak > 0
    assert main(["evaluate", str(record.folder), "--split", "test", "--device", "cpu", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)["metrics"]
    assert scored == pytest.approx(result.evaluation("test").metrics, abs=0.03)


def test_detection_learns_in_fp32_what_the_cpu_does(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda precision: None)  # TF32 rounds to 10 bits
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    data, model = write_detection(tmp_path / "data"), write_tiny_dinov2(tmp_path / "tiny-dinov2")
    losses = {}
    for device in ("cpu", "cuda"):
        record = _trained(tmp_path / device, capsys, "detection", data, model, "method=lora", f"device={device}")
        losses[device] = record.read().metrics["validation"]["loss"]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-2)


def _trained(outputs, capsys, kind, data, model, *more):
    line = [f"task={kind}_folder", f"task.dir={data}", "model=local", f"model.path={model}", f"output_dir={outputs}"]
    line += ["trainer.epochs=2", "trainer.batch_size=4", "trainer.lr=0.01", "trainer.precision=fp32", "device=cuda"]
    assert main(["train", *line, "measure.latency=false", *more]) == 0, capsys.readouterr().err
    capsys.readouterr()
    (path,) = outputs.glob("*/*/result.json")
    return Record(path.parent)


def test_dropout_goes_on_from_a_checkpoint():
    from peftbench.training.checkpoint import random_state, set_random_state

    device, ones = torch.device("cuda"), torch.ones(1000, device="cuda")
    state = random_state(device)
    first = torch.nn.functional.dropout(ones, 0.5)
    assert not torch.equal(torch.nn.functional.dropout(ones, 0.5), first)
    set_random_state(state, device)
    assert torch.equal(torch.nn.functional.dropout(ones, 0.5), first)


def test_out_of_memory_is_recognised():
    from peftbench.out_of_memory import is_out_of_memory

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    assert is_out_of_memory(caught.value)
