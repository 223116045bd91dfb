"""The promised command on the real model: a short piece of it always, the whole of it as a slow test."""

import subprocess
import sys

import forked
import pytest

from peftbench.assets.fetch import fetch
from peftbench.config.compose import compose
from peftbench.config.schema import resolve
from peftbench.errors import UserError
from peftbench.runs.record import Record
from peftbench.runs.result import Result


def _start_python(arguments: list[str], **options) -> None:
    subprocess.run([sys.executable, *arguments], **options)


@pytest.fixture(scope="module")
def real_assets():
    """Fetch the default model and data, from the cache where they are there."""
    from peftbench.tasks.text.read import load_task

    config = resolve(compose([]))
    try:
        fetch(config.model)
        load_task(config.task)
    except UserError as error:
        pytest.skip(f"the default model and data cannot be had here: {error}")


def _train(folder, *overrides, start=forked.run) -> Result:
    start(["-m", "peftbench", "train", "method=adapter", f"output_dir={folder}", *overrides], check=True)
    (result,) = folder.rglob("result.json")
    return Record(result.parent).read()


@pytest.mark.long
def test_a_short_run_on_the_real_model_repeats_itself_bit_for_bit(real_assets, data_dir, tmp_path):
    """Two processes, 192 pairs of MRPC, one epoch: the same metrics and the same curve."""
    mrpc = tmp_path / "mrpc"
    mrpc.mkdir()
    for name, rows in (("train", 193), ("dev", 61)):
        lines = (data_dir / "glue" / "mrpc" / f"{name}.tsv").read_text(encoding="utf-8").splitlines()[:rows]
        (mrpc / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    short = [
        "task=mrpc",
        f"task.dir={mrpc}",
        "threads=1",
        "trainer.epochs=1",
        "trainer.batch_size=16",
    ]
    two = _train(tmp_path / "two", *short, "measure.latency=false")
    short += ["measure.seconds=0.2", "measure.lengths=[32]"]
    one = _train(tmp_path / "one", *short, start=_start_python)
    assert one.metrics == two.metrics
    assert one.metrics["validation"]["loss"] < 0.68
    assert one.parameters.backbone == 22_713_216 and one.parameters.closed_form == 605_184
    for setting in one.latency.result["settings"]:  # how large they are, a machine with other work cannot tell
        assert 0 < setting["ratio_low"] <= setting["ratio"] <= setting["ratio_high"] and setting["method_ms"]["n"] >= 5


@pytest.mark.slow
def test_the_default_run_keeps_its_promise(real_assets, tmp_path):
    """85 % or better on validation in the mean of three seeds, each within 5 minutes on two cores."""
    results = [_train(tmp_path / str(seed), f"seed={seed}") for seed in range(3)]
    assert sum(result.metrics["validation"]["accuracy"] for result in results) / 3 >= 0.85
    assert all(result.time.total < 300 for result in results)
