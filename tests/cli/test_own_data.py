"""The user's own data, from the command line to the record, in one step."""

import json

import pytest

from peftbench.cli import main
from peftbench.runs.find import load_run

TINY = ["task=text_file", "model=local", "trainer.epochs=1", "device=cpu", "threads=1", "measure.latency=false"]
TINY += ["task.max_length=64", "trainer.batch_size=8"]


@pytest.fixture
def train(tmp_path, tiny_model_dir, capsys):
    """A function that trains on the lines given and returns exit code, standard output and error."""

    def train(*lines):
        outputs = [f"output_dir={tmp_path / 'outputs'}", f"model.path={tiny_model_dir}"]
        code = main(["train", *TINY, *outputs, *lines])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    train.outputs = tmp_path / "outputs"
    return train


@pytest.fixture
def reviews(tmp_path):
    folder = tmp_path / "my réviews"
    folder.mkdir()
    path = folder / "all=reviews (1).csv"
    rows = [
        f'{number};"a {kind} film, the plot is {kind}; {"and " * (number % 7)}fine";{kind}'
        for number, kind in enumerate(["good", "good", "bad"] * 20)
    ]
    path.write_text("\n".join(["id;Review Text;label", *rows]) + "\n")
    return path


def test_one_csv_in_one_step(train, reviews):
    code, out, err = train(
        f"task.splits.train={reviews}", "task.text=Review Text", "task.splits.validation=0.2", "method=lora"
    )
    assert code == 0, err
    assert "train       48 examples: bad 16, good 32" in out
    assert "validation  12 examples: bad 4, good 8" in out
    (path,) = train.outputs.glob("*/*/result.json")
    result = json.loads(path.read_text())
    assert result["examples"] == {"train": 48, "validation": 12}
    config = load_run(path.parent.name, train.outputs).config()
    assert config["task"]["text"] == ["Review Text"] and config["task"]["splits"]["validation"] == 0.2
    again, out, _ = train(
        f"task.splits.train={reviews}", "task.text=[Review Text]", "task.splits.validation=0.2", "method=lora"
    )
    assert again == 0 and "finished already" in out


def test_warnings_go_to_standard_error(train, reviews):
    code, out, err = train(
        f"task.splits.train={reviews}", f"task.splits.validation={reviews}", "task.text=Review Text", "method=head"
    )
    assert code == 0 and "warning:" not in out
    assert "warning: 60 of 60 validation rows also occur in the training data (leakage)" in err


@pytest.mark.parametrize("text", ["[]", "[a,b,c]", "[Review Text,Review Text]", "label"])
def test_columns_that_make_no_task_are_refused(train, reviews, text):
    code, _, err = train(f"task.splits.train={reviews}", "task.splits.validation=0.2", f"task.text={text}")
    assert code == 2 and err.startswith("peftbench: task.text") and err.count("\n") == 1


def test_a_model_without_a_tokenizer_is_refused(train, reviews, tiny_model_dir, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((tiny_model_dir / name).read_bytes())
    code, _, err = train(
        f"task.splits.train={reviews}", "task.text=Review Text", "task.splits.validation=0.2", f"model.path={bare}"
    )
    assert code == 2 and "has no tokenizer (tokenizer.json or vocab.txt)" in err and err.count("\n") == 1


def test_without_a_validation_split_both_ways_to_one_are_named(train, reviews):
    code, _, err = train(f"task.splits.train={reviews}", "task.text=Review Text")
    assert code == 2 and err.count("\n") == 1
    assert "task.splits.validation=FILE (.csv, .tsv or .jsonl), or a share of the training file such as 0.2" in err
