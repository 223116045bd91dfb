"""`peftbench advise` as it is typed, over records of planted truth and over what is shipped."""

import json
import shutil
import subprocess
import sys

import pytest
from planted import plant
from records import age

from peftbench.advice.shipped import read_shipped
from peftbench.cli import main

GOOD, AS_GOOD, BAD = (0.85, 0.855, 0.848, 0.852), (0.848, 0.857, 0.85, 0.845), (0.7, 0.71, 0.69, 0.7)
FULL, ADAPTER, LORA = {"name": "full"}, {"name": "adapter", "bottleneck": 64}, {"name": "lora", "rank": 8}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Full fine-tuning and LoRA of equal truth, an adapter that is worse; tests that add runs take a copy."""
    folder = tmp_path_factory.mktemp("outputs")
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
    assert (method["answer"], method["cheapest_tie"]) == ("full", "lora r = 8")
    assert [tie["row"] for tie in method["ties"]] == ["lora r = 8"]
    (lower,) = method["lower"]
    assert lower["row"] == "adapter m = 64" and lower["high"] < -10
    assert method["command"] == "peftbench train method=full task=mrpc"
    assert method["command_of_cheapest_tie"] == "peftbench train method=lora method.rank=8 task=mrpc"
    evidence = method["evidence"]
    assert (evidence["kind"], evidence["examples"], evidence["seeds"]) == ("own records", 300, 4)
    assert (
        " %, 4 seeds, n = 300." in method["sentence"]
        and "The cheapest tied with it is lora r = 8" in method["sentence"]
    )


def test_a_known_winner(tmp_path, ask):
    plant(tmp_path, FULL, BAD, share=1.0)
    plant(tmp_path, LORA, GOOD, share=0.003)
    method, *_ = ask(tmp_path)
    assert (method["answer"], method["ties"], method["not_compared"]) == ("lora r = 8", [], [])
    assert method["front"] == ["lora r = 8"] and "score lower, 95 %." in method["sentence"]


def test_limits_leave_out_and_tasks_multiply(outputs, ask):
    method, *_ = ask(outputs, "--share", "1%", "--tasks", "3")
    assert method["answer"] == "lora r = 8"
    assert set(method["over"]) == {"full", "adapter m = 64"}
    (lora,) = [one for one in method["candidates"] if one["label"] == "lora r = 8"]
    assert lora["costs"]["share"]["value"] == pytest.approx(0.9)
    assert lora["costs"]["latency"]["value"] == pytest.approx(1.05)  # several tasks cannot share merged weights


def test_the_lab_is_contradicted_by_a_planted_truth(tmp_path, ask):
    plant(tmp_path, {"name": "adapter", "bottleneck": 8}, GOOD, share=0.004)
    plant(tmp_path, ADAPTER, BAD, share=0.027)
    method, bottleneck, *_ = ask(tmp_path)
    assert method["evidence"]["kind"] == "shipped"  # one method compares none
    assert bottleneck["evidence"]["kind"] == "own records"
    assert bottleneck["question"] == "Which bottleneck of adapter?" and bottleneck["answer"] == "adapter m = 8"
    lab = next(one for one in bottleneck["beside"] if one["evidence"]["kind"] == "lab")
    assert lab["answer"] == "adapter m = 64"
    (verdict,) = bottleneck["verdicts"]
    assert verdict["verdict"] == "does not hold" and "scores lower than adapter m = 8 here: −15" in verdict["text"]


def test_the_lab_agrees_with_a_planted_truth_or_cannot_be_told(tmp_path, ask):
    plant(tmp_path, {"name": "adapter", "bottleneck": 8}, BAD, share=0.004)
    plant(tmp_path, ADAPTER, GOOD, share=0.027)
    assert [one["verdict"] for one in ask(tmp_path)[1]["verdicts"]] == ["holds"]
    plant(tmp_path, {"name": "adapter", "bottleneck": 8}, [accuracy + 0.005 for accuracy in GOOD], share=0.004)
    assert [one["verdict"] for one in ask(tmp_path)[1]["verdicts"]] == ["cannot be told"]


def test_the_lab_is_contradicted_on_a_limit(outputs, tmp_path, ask):
    outputs = shutil.copytree(outputs, tmp_path / "more")
    plant(outputs, {"name": "prefix", "length": 20}, BAD, share=0.004, latency=1.05)
    method, *_ = ask(outputs, "--latency", "1.02")
    texts = [one["text"] for one in method["verdicts"] if one["verdict"] == "does not hold"]
    assert texts == ["prefix 20: latency 1.050 (1.040 … 1.060) × bare, over 1.02 here, within it there"]


def test_the_nearest_size_is_taken_and_its_distance_said(outputs, tmp_path, ask):
    outputs = shutil.copytree(outputs, tmp_path / "more")
    for method in (LORA, {"name": "bitfit"}):
        plant(outputs, method, GOOD, task="cola", training_rows=8551)
    assert ask(outputs, "--size", "5000")[0]["evidence"]["task"] == "mrpc"
    method, *_ = ask(outputs, "--size", "20000")
    assert method["evidence"]["task"] == "cola"
    assert "nearest evidence to 20,000 training rows: 8,551, 2.3 times fewer" in method["notes"]
    assert any("mrpc from minilm (pair, 3,668 training rows)" in note for note in method["notes"])
    assert ask(outputs, "--task-type", "classification")[0]["evidence"]["task"] == "cola"


def test_without_own_runs_to_compare_the_shipped_tables_answer(tmp_path, ask):
    method, *rest = ask(tmp_path / "none")
    assert method["evidence"]["kind"] == "shipped" and method["evidence"]["made"] and method["evidence"]["machine"]
    assert any("bottleneck" in one["question"] for one in rest)
    plant(tmp_path, LORA, GOOD)
    method, *_ = ask(tmp_path)
    assert method["evidence"]["kind"] == "shipped" and "fewer than two methods" in method["notes"][0]
    for record in plant(tmp_path, FULL, GOOD) + plant(tmp_path, LORA, GOOD):
        age(record)
    method, *_ = ask(tmp_path)
    assert "8 runs of other code" in method["notes"][0]


def test_own_runs_of_one_seed_do_not_take_the_place_of_shipped_tables(tmp_path, ask):
    for method in (LORA, FULL):
        plant(tmp_path, method, GOOD[:1])
        plant(tmp_path, method, GOOD[:2], task="cola", training_rows=8551)
    method, *_ = ask(tmp_path, "--task-type", "pair", "--size", "3668")
    assert method["evidence"]["kind"] == "shipped" and "have one seed a method" in method["notes"][0]
    assert ask(tmp_path, "--size", "3668")[0]["evidence"]["task"] == "cola", "the farther runs of two seeds"


def test_without_any_figures_of_the_kind_it_says_why_and_what_to_train(tmp_path, monkeypatch, capsys):
    pairs = [one for one in read_shipped() if one.task_type == "pair"]
    monkeypatch.setattr("peftbench.advice.advise.read_shipped", lambda: pairs)
    assert main(["advise", "--task-type", "images", "--output-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"nothing was measured on tasks of type images: no such runs under {tmp_path}" in error
    assert "seed=0,1,2 task=cifar10" in error and len(error.splitlines()) == 1
    for record in plant(tmp_path, LORA, GOOD, task="cola") + plant(tmp_path, FULL, GOOD, task="cola"):
        age(record)
    assert main(["advise", "--task-type", "classification", "--output-dir", str(tmp_path)]) == 2
    assert "cola from minilm: 8 runs of other code, which force=true trains again" in capsys.readouterr().err


def test_the_terminal_shows_figures_answer_and_command(outputs, capsys):
    assert main(["advise", "--output-dir", str(outputs), "--latency", "1.08"]) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert lines[0] == "limits: latency ≤ 1.08 × bare"
    (line,) = [line for line in lines if line.startswith("Answer: full, highest accuracy within the limits: 85.1 (")]
    assert " %, 4 seeds, n = 300. The cheapest tied with it is lora r = 8: −0.2 (" in line
    assert "  peftbench train method=full task=mrpc" in lines
    (adapter,) = [line for line in lines if line.startswith("adapter m = 64 ") and line.rstrip().endswith("latency")]
    assert "70.0 (6" in adapter
    assert "decision tables are not among peftbench's sources" in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--latency", "0.5"], "no method keeps to latency at most 0.5, lowest 1.000"),
        (["--memory", "1M"], "no method keeps to training memory at most 1, lowest 1,024 MiB"),
        (["--task-type", "verse"], "invalid choice: 'verse'"),
        (["--memory", "2"], "--memory 2 must be a size with its unit, such as 2G or 900M"),
        (["--memory", "-2G"], "--memory"),
        (["--memory", "0G"], "--memory 0G must be a size"),
        (["--memory", "9" * 400 + "G"], "9 must be a size"),
        (["--latency", "105%"], "--latency 105% must be a ratio to the bare backbone's and no percent, such as 1.05"),
        (["--size", "3k"], "--size 3k must be a whole number, 1 or more"),
        (["--size", "0"], "--size 0 must be"),
        (["--tasks", "1.5"], "--tasks 1.5 must be a whole number"),
        (["--latency", "fast"], "--latency fast must be a ratio"),
        (["--share", "inf"], "--share inf must be percent"),
        (["--share", "-1"], "--share -1 must be percent"),
        (["--shares", "1"], "has no option --shares"),
        (["lora"], "too many arguments: 'lora'"),
    ],
)
def test_bad_input_is_one_line(outputs, capsys, options, said):
    assert main(["advise", "--output-dir", str(outputs), *options]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_it_needs_no_torch(outputs):
    code = (
        "import sys; from peftbench.cli import main;"
        f"assert main(['advise', '--output-dir', {str(outputs)!r}]) == 0;"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_runs_as_they_are_trained_on_a_task_of_scores(train_tiny, ask):
    for method in (["method=head"], ["method=lora", "method.rank=2"]):
        for seed in (0, 1):
            record = train_tiny("scores", *method, f"seed={seed}", "trainer.max_steps=2")
    method, *_ = ask(record.folder.parents[1], "--task-type", "regression")
    assert (method["evidence"]["kind"], method["evidence"]["primary"]) == ("own records", "pearson")
    lora = next(one for one in method["candidates"] if one["label"] == "lora r = 2")
    assert {"method=lora", "method.rank=2", "task=stsb"} <= set(lora["overrides"])
    assert not any(line.startswith(("seed=", "output_dir=")) for line in lora["overrides"])
