"""`peftbench advise` as it is typed, over records of planted truth and over what is shipped."""

import json

import pytest
from planted import plant

from peftbench.cli import main

GOOD, AS_GOOD, BAD = (0.85, 0.855, 0.848, 0.852), (0.848, 0.857, 0.85, 0.845), (0.7, 0.71, 0.69, 0.7)
FULL, ADAPTER, LORA = {"name": "full"}, {"name": "adapter", "bottleneck": 64}, {"name": "lora", "rank": 8}


@pytest.fixture
def outputs(tmp_path):
    """Full fine-tuning and LoRA of equal truth, an adapter that is worse."""
    folder = tmp_path / "outputs"
    plant(folder, FULL, GOOD, share=1.0, latency=1.0)
    plant(folder, LORA, AS_GOOD, share=0.003, latency=1.05, merged=1.0)
    plant(folder, ADAPTER, BAD, share=0.027, latency=1.09)
    return folder


@pytest.fixture
def ask(capsys):
    """A function that returns the questions of the JSON."""

    def ask(outputs, *options):
        assert main(["advise", "--output-dir", str(outputs), "--format", "json", *options]) == 0
        return json.loads(capsys.readouterr().out)["questions"]

    return ask


def test_the_highest_its_tie_and_what_is_lower(outputs, ask):
    method, *_ = ask(outputs)
    assert method["question"] == "Which method?"
    assert method["answer"] == "full"
    assert [tie["row"] for tie in method["ties"]] == ["lora, rank 8"]
    (lower,) = method["lower"]
    assert lower["row"] == "adapter, bottleneck 64" and lower["high"] < -10
    assert method["command"] == "peftbench train method=full task=mrpc"
    evidence = method["evidence"]
    assert (evidence["kind"], evidence["examples"], evidence["seeds"]) == ("own records", 600, 4)
    assert "lora, rank 8" in method["sentence"] and "n = 600" not in method["sentence"]


def test_a_known_winner(tmp_path, ask):
    plant(tmp_path, FULL, BAD, share=1.0)
    plant(tmp_path, LORA, GOOD, share=0.003)
    method, *_ = ask(tmp_path)
    assert (method["answer"], method["ties"], method["not_compared"]) == ("lora, rank 8", [], [])
    assert method["front"] == ["lora, rank 8"]
