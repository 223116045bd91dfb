import json

import pytest
from tiny import tiny_model

from peftbench.commands import params
from peftbench.errors import UserError
from peftbench.methods import METHODS


def rows(capsys, *argv):
    assert params.main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_one_row(capsys):
    (row,) = rows(capsys, "model=bert_base", "method=lora", "method.rank=4")
    assert (row["method"], row["model"], row["task"]) == ("lora", "bert_base", "stsb_binary")
    counts = row["parameters"]
    assert (counts["method"], counts["closed_form"], counts["head"]) == (147_456, 147_456, 1_538)
    assert counts["backbone"] == 109_482_240
    assert counts["total"] == 109_482_240 + 147_456 + 1_538
    assert round(100 * counts["share_method"], 4) == 0.1347


def test_table(capsys):
    assert params.main(["model=bert_base", "method=adapter,full,head"]) == 0
    out = capsys.readouterr().out
    adapter, full, head = (
        line.split() for line in out.splitlines() if line.split()[:1] in (["adapter"], ["full"], ["head"])
    )
    assert adapter == [
        "adapter",
        "2,417,664",
        "2,417,664",
        "1,538",
        "109,482,240",
        "2.208",
        "%",
        "2.163",
        "%",
    ]
    assert full[-4:] == ["100.0", "%", "100.0", "%"]
    assert head[-4:] == ["0", "%", "0.001405", "%"]
    assert "backbone bert_base, task stsb_binary" in out


def test_a_row_for_each_combination(capsys):
    """A setting that one of the methods does not have is left out for it, and the row comes once."""
    found = rows(capsys, "model=bert_base", "method=adapter,lora", "method.bottleneck=8,64")
    assert [(row["overrides"][1:], row["parameters"]["method"]) for row in found] == [
        (["method=adapter", "method.bottleneck=8"], 313_536 + 38_400),
        (["method=adapter", "method.bottleneck=64"], 2_379_264 + 38_400),
        (["method=lora"], 294_912),
    ]


def test_flags_may_stand_between_overrides(capsys):
    assert params.main(["method=head", "--json", "model=minilm,bert_base"]) == 0
    assert [row["model"] for row in json.loads(capsys.readouterr().out)] == ["minilm", "bert_base"]


@pytest.mark.parametrize(("task", "head"), [("mrpc", 770), ("stsb", 385), ("mnli", 1155), ("text_file", 770)])
def test_the_head_follows_the_task(capsys, task, head):
    (row,) = rows(capsys, f"task={task}")
    assert row["parameters"]["head"] == head


def test_scores_in_a_text_file(capsys):
    (row,) = rows(capsys, "task=text_file", "task.metrics=[pearson]")
    assert row["parameters"]["head"] == 385
    (row,) = rows(capsys, "task=text_file", "task.labels=[a,b,c,d]")
    assert row["parameters"]["head"] == 4 * 385


@pytest.mark.parametrize("start", [["method.init=vocab"], ["method.init=text", "method.text=hello"]])
def test_prompts_need_no_weights_or_tokenizer(capsys, start):
    (row,) = rows(capsys, "method=prompt", "method.length=5", *start)
    assert row["parameters"]["method"] == row["parameters"]["closed_form"] == 5 * 384


@pytest.mark.parametrize(
    "model",
    ["bert_large", "roberta_base", "distilbert_base", "electra_small", "mpnet_base", "deberta_v3_base"],
)
def test_every_method_on_every_kind_of_model(capsys, model):
    # peft knows few models by itself
    methods = [name for name, cls in METHODS.items() if name != "peft" and "texts" in cls.modalities]
    found = rows(capsys, f"model={model}", f"method={','.join(methods)}")
    assert len(found) == len(methods)
    for row in found:
        assert row["parameters"]["method"] == row["parameters"]["closed_form"], row


@pytest.mark.parametrize("architecture", ["bert", "deberta-v2"])
def test_a_local_folder(capsys, tmp_path, architecture):
    """The architecture comes from its config.json, whatever head was saved with it; no weights needed."""
    model = tiny_model(architecture, num_labels=5)
    model.config.save_pretrained(tmp_path)
    (row,) = rows(capsys, "model=local", f"model.path={tmp_path}", "method=full")
    backbone = sum(p.numel() for p in model.base_model.parameters())
    head = sum(p.numel() for n, p in model.named_parameters() if "classifier" not in n) - backbone + 2 * 33
    assert (row["parameters"]["backbone"], row["parameters"]["head"]) == (backbone, head)


def test_a_folder_without_a_readable_config(tmp_path):
    argv = ["model=local", f"model.path={tmp_path}"]
    with pytest.raises(UserError, match="has no config.json"):
        params.main(argv)
    (tmp_path / "config.json").write_text('{"model_type": "be')
    with pytest.raises(UserError, match=r"cannot read the model's config .*config\.json"):
        params.main(argv)
    (tmp_path / "config.json").write_text("[" * 200_000)
    with pytest.raises(UserError, match=r"cannot read the model's config .*config\.json"):
        params.main(argv)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="holds no JSON object"):
        params.main(argv)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="names no architecture"):
        params.main(argv)


def test_no_hub(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("name resolution failed\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(UserError) as caught:
        params.main(["model=hub", "model.id=some/model"])
    line = str(caught.value)
    assert "cannot read the architecture of some/model from the hub: name resolution failed" in line
    assert "model=local model.path=FOLDER" in line and "\n" not in line


def test_a_model_of_the_hub(monkeypatch, capsys, tmp_path):
    tiny_model("roberta").config.save_pretrained(tmp_path)
    asked = {}

    def download(id, **kwargs):
        asked.update(kwargs, id=id)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    (row,) = rows(capsys, "model=hub", "model.id=some/model", "model.revision=v2", "method=prompt")
    assert row["parameters"]["method"] == 20 * 32
    assert (asked["id"], asked["revision"], asked["allow_patterns"]) == ("some/model", "v2", ["config.json"])


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            ["method=adapter,lora", "method.bottlneck=8"],
            "method=adapter has no key 'bottlneck'. Did you mean",
        ),
        (["method=adaptr,lora"], "method=adaptr: there is no such method. Did you mean adapter"),
        (["method=lora", "method.rank=385"], "method.rank=385 is larger than the dimension 384"),
        (["method.bottleneck=0"], "method.bottleneck=0 must be 1 or more"),
        (["model=hub"], "model.id has no value"),
        (["seed"], "cannot read 'seed'"),
    ],
)
def test_mistakes(argv, line):
    with pytest.raises(UserError) as caught:
        params.main(argv)
    assert line in str(caught.value)


def test_help_is_light(capsys):
    with pytest.raises(SystemExit) as caught:
        params.main(["--help"])
    assert caught.value.code == 0 and "KEY=VALUE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100.0 %"), (0.02163, "2.163 %"), (1.405e-5, "0.001405 %"), (0.1, "10.00 %")],
)
def test_shares_have_four_significant_digits(share, text):
    assert params._percent(share) == text
