"""A run that is made of runs: which they are, what is recorded of them, and what becomes of it without them."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import save_file
from tiny import tiny_model

from peftbench.cli import main
from peftbench.errors import UserError
from peftbench.runs.adapter import read_tensors
from peftbench.runs.record import Record
from peftbench.runs.result import Result, Status, read_as

ADAPTER = ("method=pfeiffer", "method.bottleneck=4")
FUSION = ("method=fusion", "trainer.lr=0.01")


@pytest.fixture(scope="module")
def single(train_tiny):
    return {task: train_tiny(task, *ADAPTER, "trainer.lr=0.01", "experiment=stage1") for task in ("opinions", "pairs")}


def naming(runs):
    return f"method.adapters={{{', '.join(f'{name}: {record.folder}' for name, record in runs.items())}}}"


@pytest.fixture(scope="module")
def fusion(train_tiny, single):
    return train_tiny("opinions", *FUSION, naming(single), "experiment=stage2")


def test_the_record_keeps_what_it_is_made_of(fusion, single):
    result = fusion.read()
    for name, record in single.items():
        part = result.origin.parts[name]
        assert part.run == record.folder.name
        assert part.adapter == record.read().files["adapter/adapter.safetensors"]
    assert result.parameters.method == result.parameters.closed_form
    observed = result.evaluation().observed
    assert observed["adapters"] == ["opinions", "pairs"] and observed["places"] == ["layer 0", "layer 1"]
    assert [sum(weights) for weights in observed["weights"]] == pytest.approx([1, 1])
    assert result.evaluation("test").observed["weights"] != observed["weights"]


def test_what_trains_is_the_fusion_alone(fusion, single):
    tensors = read_tensors(fusion.adapter_dir)
    for number, name in enumerate(sorted(single)):
        own = read_tensors(single[name].adapter_dir)
        for layer in range(2):
            stack = tensors[f"method.adapters.bottlenecks.{layer}.down_weight"]
            assert torch.equal(stack[number], own[f"method.bottlenecks.{layer}.down_weight"])
    value = tensors["method.adapters.bottlenecks.1.value.weight"]
    assert 0 < (value - torch.eye(32)).abs().max() < 0.5


def test_the_id_is_of_the_runs_and_not_of_how_they_are_named(train_tiny, fusion, single, tmp_path, monkeypatch):
    output_dir = fusion.folder.parents[1]
    moved = tmp_path / "elsewhere"
    for record in single.values():
        shutil.copytree(record.folder, moved / record.folder.name)
    ids = {name: record.folder.name for name, record in single.items()}
    spellings = [
        f"method.adapters={{pairs: {ids['pairs'][-8:]}, opinions: {ids['opinions']}}}",
        f"method.adapters={{pairs: {moved / ids['pairs']}/, opinions: {moved / ids['opinions']}/result.json}}",
    ]
    monkeypatch.chdir(output_dir)
    spellings.append(f"method.adapters={{pairs: stage1/{ids['pairs']}, opinions: ./stage1/{ids['opinions']}}}")
    for spelling in spellings:
        assert train_tiny("opinions", *FUSION, spelling, "experiment=stage2").folder == fusion.folder
    monkeypatch.setenv("HOME", str(output_dir))
    by_pattern = "method.adapters='~/stage1/pfeiffer-*'"
    named = train_tiny("opinions", *FUSION, by_pattern, "experiment=stage2", "trainer.epochs=1")
    assert named.read().origin.parts.keys() == {"text_file", "mrpc"}, "after their tasks"
    with_more = naming({**single, "more": fusion})
    same = train_tiny("opinions", *FUSION, with_more, "method.leave_out=[more]", "experiment=stage2")
    assert same.folder == fusion.folder


def test_a_part_that_was_trained_again_makes_it_stale(train_tiny):
    lines = ("trainer.epochs=1", "experiment=stale")
    parts = {name: train_tiny("opinions", *ADAPTER, *lines, f"seed={n}") for n, name in enumerate("ab")}
    line = (*FUSION, naming(parts), *lines)
    record, again = train_tiny("opinions", *line), parts["b"]
    content = read_tensors(again.adapter_dir)
    save_file({name: 1.01 * tensor for name, tensor in content.items()}, again.adapter_dir / "adapter.safetensors")
    again.finish()  # as another training would have left it
    with pytest.raises(UserError, match="before its adapter b was trained again"):
        train_tiny("opinions", *line)
    train_tiny("opinions", *line, "force=true")
    train_tiny("opinions", *line)
    assert record.read().origin.parts["b"].adapter == again.read().files["adapter/adapter.safetensors"]


def test_one_run_by_two_paths_and_two_runs_of_one_id(train_tiny, single, tmp_path):
    folder = single["pairs"].folder
    (tmp_path / "link").symlink_to(folder.parent)
    with pytest.raises(UserError, match="a and b are the same run"):
        train_tiny("opinions", *FUSION, f"method.adapters={{a: {folder}, b: {tmp_path}/link/{folder.name}}}")
    with pytest.raises(UserError, match="names 1 run"):
        train_tiny("opinions", *FUSION, f"method.adapters={tmp_path}/*/{folder.name}")
    shutil.copytree(folder, tmp_path / "copy" / folder.name)
    with pytest.raises(UserError, match="names two runs pfeiffer-mrpc.*/copy and .*/link: write"):
        train_tiny("opinions", *FUSION, f"method.adapters={tmp_path}/*/{folder.name}")


@pytest.mark.long
def test_it_works_without_its_parts(fusion, single, tmp_path, capsys):
    """Its adapter holds theirs."""
    alone = tmp_path / "stage2" / fusion.folder.name
    shutil.copytree(fusion.folder, alone)
    text = (alone / "adapter" / "adapter.json").read_text()
    assert not any(str(record.folder) in text for record in single.values())
    config = alone / "config.yaml"
    gone = config.read_text().replace("stage1", "gone")
    assert gone != config.read_text()
    config.write_text(gone)
    record = Record(alone)
    result = json.loads(record.result_path.read_text())
    del result["files"], result["digest"]
    record._write(read_as(Result, result, "result"))
    assert main(["predict", str(alone), "the film was good"]) == 0
    assert main(["evaluate", str(alone), "--split", "test", "--latency", "--fusion-weights"]) == 0
    assert "stage1" not in capsys.readouterr().err


def test_parameters_are_counted_from_the_configs(single, tiny_model_dir, capsys):
    line = ["method=fusion", naming(single), "model=local", f"model.path={tiny_model_dir}", "--json"]
    assert main(["params", *line]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    counts = row["parameters"]
    assert counts["method"] == counts["closed_form"] == 2 * (3 * 32**2 + 2 * 32)
    assert counts["total"] == counts["backbone"] + counts["method"] + counts["head"] + 2 * 2 * (2 * 4 * 32 + 4 + 32)
    assert main(["params", *line[:1], naming(single).replace("pairs:", "opinions:"), *line[2:]]) == 2
    assert "names opinions twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        ("null", "names no runs"),
        ("{}", "names no runs"),
        ("{a: %(opinions)s}", "names 1 run: it takes 2 or more"),
        ("{a: %(opinions)s, b: %(opinions)s}", "a and b are the same run"),
        ("{a: %(opinions)s, b: nowhere}", "b: No run 'nowhere'"),
        ("%(opinions)s-*", "is the folder of no run"),
        ("%(opinions)s", "names 1 run"),
        ("{a: %(opinions)s, b: %(lora)s}", "b: it is a run of lora: what can be fused is"),
        ("{a: %(opinions)s, b: %(fusion)s}", "b: it is a fusion itself"),
        ("{a: %(opinions)s, b: %(norms)s}", "b: it trained the backbone's layer norms"),
        ("{a: %(opinions)s, b: %(larger)s}", "of different sizes .method.bottleneck is 4 and 5"),
        ("{a: %(opinions)s, b: %(failed)s}", "b .* is failed"),
        ("{a: %(opinions)s, b: %(damaged)s}", "adapter.safetensors is damaged"),
        ("{a: %(opinions)s, b: %(other)s}", "b was trained on"),
    ],
)
def test_what_cannot_be_fused_is_said_in_one_line(train_tiny, single, fusion, tiny_run, tmp_path, adapters, message):
    runs = {**single, "fusion": fusion, "lora": tiny_run}
    if "%(norms)s" in adapters:
        runs["norms"] = train_tiny("opinions", "method=adapter", "method.bottleneck=4", "trainer.epochs=1")
    if "%(larger)s" in adapters:
        runs["larger"] = train_tiny("opinions", "method=pfeiffer", "method.bottleneck=5", "trainer.epochs=1")
    for name in ("failed", "damaged"):
        if f"%({name})s" in adapters:
            folder = tmp_path / single["pairs"].folder.name
            shutil.copytree(single["pairs"].folder, folder)
            runs[name] = Record(folder)
    if "%(failed)s" in adapters:
        runs["failed"].fail(Status.FAILED, "it did")
    if "%(damaged)s" in adapters:
        path = runs["damaged"].adapter_dir / "adapter.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    if "%(other)s" in adapters:
        model = tmp_path / "other"
        shutil.copytree(re.search(r"path: (\S+)", single["pairs"].config_path.read_text())[1], model)
        tiny_model("bert", seed=5).base_model.save_pretrained(model)
        runs["other"] = train_tiny("opinions", *ADAPTER, f"model.path={model}", "trainer.epochs=1")
    line = f"method.adapters={adapters}" % {name: record.folder for name, record in runs.items()}
    before = set(fusion.folder.parent.iterdir())
    with pytest.raises(UserError, match=message) as error:
        train_tiny("opinions", *FUSION, line, "experiment=stage2")
    assert "\n" not in str(error.value)
    assert set(fusion.folder.parent.iterdir()) == before, "nothing is written"
