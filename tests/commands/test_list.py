import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from peftbench.commands import list as listing
from peftbench.config.folder import CONFIG_PATH
from peftbench.errors import UserError


def printed(capsys: pytest.CaptureFixture, *argv: str) -> str:
    assert listing.main(list(argv)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("group", ["method", "model", "task"])
def test_every_config_file_is_listed(group: str, capsys: pytest.CaptureFixture) -> None:
    names = sorted(path.stem for path in Path(CONFIG_PATH, group).glob("*.yaml"))
    header, *rows = printed(capsys, f"{group}s").splitlines()
    assert header.split()[0] == group
    assert [row.split()[0] for row in rows] == names
    for option in json.loads(printed(capsys, f"{group}s", "--json")):
        config = OmegaConf.load(Path(CONFIG_PATH, group, f"{option['name']}.yaml"))
        assert option["description"].endswith((".", "NAME", "FOLDER", "FILE"))
        assert {**option, "description": 0} == {**OmegaConf.to_container(config), "description": 0}


def test_all(capsys: pytest.CaptureFixture) -> None:
    blocks = printed(capsys).strip().split("\n\n")
    assert [block.split()[0] for block in blocks] == ["method", "model", "task", "table"]
    assert list(json.loads(printed(capsys, "--json"))) == ["methods", "models", "tasks", "tables"]


def test_what_a_line_says(capsys: pytest.CaptureFixture) -> None:
    lines = {line.split()[0]: " ".join(line.split()) for line in printed(capsys).splitlines() if line}
    assert "rank=8 alpha=16 dropout=0.0 targets=[query,value] rslora=false" in lines["lora"]
    assert lines["bert_base"].startswith("bert_base hub google-bert/bert-base-uncased BERT-base")
    assert lines["minilm"].startswith("minilm package index all-MiniLM-L6-v2")
    assert lines["mrpc"].startswith("mrpc sentence1, sentence2 accuracy, f1 hub Microsoft")
    assert lines["stsb_binary"].startswith("stsb_binary sentence1, sentence2 accuracy, f1 package index")


def test_a_list_there_is_not() -> None:
    with pytest.raises(UserError, match="no list of 'method'. Did you mean methods"):
        listing.main(["method"])
