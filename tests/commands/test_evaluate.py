import csv
import errno
import json
import shutil
from pathlib import Path

import pytest

from peftbench.commands import evaluate
from peftbench.errors import UserError
from peftbench.runs.record import Record


def evaluated(capsys: pytest.CaptureFixture, record: Record, *argv: object) -> dict:
    assert evaluate.main([str(record.folder), "--device", "cpu", "--json", *map(str, argv)]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("fixture", "split"),
    [
        ("tiny_run", "validation"),
        ("tiny_run", "test"),
        ("tiny_pair_run", "validation"),
        ("tiny_score_run", "validation"),
    ],
)
def test_gives_the_figures_of_the_record(
    fixture: str, split: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture
) -> None:
    record: Record = request.getfixturevalue(fixture)
    result = evaluated(capsys, record, "--split", split)
    assert result["metrics"] == pytest.approx(record.read().metrics[split], rel=1e-5, abs=1e-6)
    assert result["stored"] == "predictions.csv"  # the run's own, left as it is
    assert result["examples"] == record.read().examples[split]
    assert (result["run"], result["split"], result["latency"]) == (record.folder.name, split, None)


def test_the_confusion_matrix_of_few_classes(tiny_run: Record, capsys: pytest.CaptureFixture) -> None:
    result = evaluated(capsys, tiny_run)
    by_class = result["by_class"]
    assert by_class == tiny_run.read().evaluation("validation").by_class
    assert by_class["names"] == ["bad", "good"] and sum(map(sum, by_class["confusion"])) == 21
    correct = by_class["confusion"][0][0] + by_class["confusion"][1][1]
    assert result["metrics"]["accuracy"] == pytest.approx(correct / 21)
    evaluate.main([str(tiny_run.folder), "--device", "cpu"])
    header, bad, good = (line.split() for line in capsys.readouterr().out.splitlines()[-3:])
    assert header == ["validation:", "true", "\\", "predicted", "bad", "good", "F1"]
    assert bad[:3] == ["bad", *map(str, by_class["confusion"][0])]
    assert good == ["good", *map(str, by_class["confusion"][1]), f"{100 * by_class['f1'][1]:.1f}", "%"]


def test_other_data_than_the_run_s_is_said_in_a_line(
    tiny_pair_run: Record, tiny_data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "pairs"
    shutil.copytree(tiny_data_dir / "pairs", folder)
    line = [str(tiny_pair_run.folder), "--device", "cpu", "--task-dir", str(folder)]
    assert evaluate.main(line) == 0 and capsys.readouterr().err == ""
    text = (folder / "dev.tsv").read_text()
    (folder / "dev.tsv").write_text(text.replace("the film", "a film", 1))
    assert evaluate.main(line) == 0
    expected = f"warning: folder {folder} holds another validation split than when this run was trained"
    assert capsys.readouterr().err.splitlines() == [expected]


def test_another_split_and_batch_size(tiny_run: Record, capsys: pytest.CaptureFixture) -> None:
    whole = evaluated(capsys, tiny_run, "--split", "train")
    assert whole["examples"] == 48
    one_by_one = evaluated(capsys, tiny_run, "--split", "train", "--batch-size", 1)
    assert one_by_one["metrics"] == pytest.approx(whole["metrics"], rel=1e-4)


@pytest.mark.parametrize(("settings", "cores", "used"), [("threads=null", 4, 2), ("threads=4", 3, 3)])
def test_threads_are_the_run_s_whatever_was_scored_before(
    settings: str, cores: int, used: int, train_tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    try:
        record = train_tiny("opinions", settings, "trainer.epochs=1", "seed=4", f"experiment=cores-{cores}")
        torch.set_num_threads(1)  # as scoring a run with threads=1 leaves it
        monkeypatch.setattr("os.cpu_count", lambda: cores)
        assert evaluate.main([str(record.folder), "--device", "cpu"]) == 0
        assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)


def test_merged_with_latency(train_tiny, capsys: pytest.CaptureFixture) -> None:
    record = train_tiny(
        "opinions", "method=lora", "trainer.lr=0.01", "measure.seconds=0.01", "seed=7", "experiment=quick"
    )
    plain = evaluated(capsys, record)
    merged = evaluated(capsys, record, "--merged", "--latency")
    assert merged["merged"]
    assert merged["metrics"] == pytest.approx(plain["metrics"], rel=1e-4)
    settings = merged["latency"]["settings"]
    assert {(setting["batch"], setting["length"]) for setting in settings} == {(1, 32), (32, 32)}
    assert merged["latency"]["merge_difference"] < 1e-3
    assert evaluate.main([str(record.folder), "--latency", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "accuracy",
        "F1",
        "latency",
        "latency",
        "stored",
        "run",
        "validation:",
        "bad",
        "good",
    ]
    assert "ms at batch 1 of 32 tokens" in lines[2]


def test_an_evaluation_is_stored_beside_the_run_s_own(
    tiny_run: Record, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    record = Record(shutil.copytree(tiny_run.folder, tmp_path / tiny_run.folder.name))
    record.update(evaluations=[own for own in record.read().evaluations if own.predictions == "predictions.csv"])
    for _ in range(2):  # the second takes the first one's place
        evaluated(capsys, record, "--merged")
        whole = evaluated(capsys, record, "--split", "train")
    result = record.read()
    assert [(one.split, one.merged) for one in result.evaluations] == [
        ("validation", False), ("test", False), ("validation", True), ("train", False),
    ]  # fmt: skip
    assert result.metrics["validation"] == tiny_run.read().metrics["validation"]
    merged = result.evaluation("validation", merged=True)
    assert merged.metrics == pytest.approx(result.metrics["validation"], rel=1e-4)
    own = record.predictions(result.evaluation("validation"))
    assert record.predictions(merged).labels == own.labels
    assert (
        record.predictions(result.evaluation("train")).labels and result.evaluation("train").metrics == whole["metrics"]
    )
    assert evaluate.main([str(record.folder), "--merged"]) == 0
    assert "stored" in capsys.readouterr().out


def test_a_record_that_is_only_read_is_scored_all_the_same(
    tiny_run: Record, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record(shutil.copytree(tiny_run.folder, tmp_path / tiny_run.folder.name))

    def refuse(self: Path, *arguments: object, **more: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    before = record.result_path.read_bytes()
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert evaluate.main([str(record.folder), "--merged", "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    assert "accuracy" in shown.out and "stored" not in shown.out
    assert shown.err.startswith("peftbench: not stored: ") and shown.err.count("\n") == 1
    assert record.result_path.read_bytes() == before


def test_a_replaced_model_is_noticed(
    train_tiny, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    record = train_tiny("opinions", "method=bitfit", f"model.path={model}")
    assert evaluated(capsys, record)["metrics"]
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match="holds another model than run"):
        evaluate.main([str(record.folder)])


def test_what_a_reader_sees(tiny_run: Record, capsys: pytest.CaptureFixture) -> None:
    assert evaluate.main([str(tiny_run.folder)]) == 0
    accuracy, f1, stored, run, *_ = capsys.readouterr().out.splitlines()
    score = tiny_run.read().metrics["validation"]
    assert accuracy.split() == [
        "accuracy",
        f"{100 * score['accuracy']:.1f}",
        "%",
        "validation,",
        "21",
        "examples",
    ]
    assert f1.split()[:2] == ["F1", f"{100 * score['f1']:.1f}"]
    assert run.split() == ["run", tiny_run.folder.name]


def test_finds_the_run_by_id_and_experiment(tiny_run: Record, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    outputs = tmp_path / "outputs"  # of this one run, which others may stand beside where it was trained
    shutil.copytree(tiny_run.folder, outputs / "opinions" / tiny_run.folder.name)
    assert evaluate.main(["lora", "--output-dir", str(outputs), "--experiment", "opinions", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == tiny_run.folder.name
    with pytest.raises(UserError, match="there are no runs under"):
        evaluate.main(["lora", "--output-dir", str(outputs), "--experiment", "none"])


def test_writes_predictions(tiny_run: Record, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "told.csv"
    assert evaluated(capsys, tiny_run, "--write", path)["predictions"] == str(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = tiny_run.predictions(tiny_run.read().evaluation("validation"))
    names = ("bad", "good")
    assert [row["label"] for row in rows] == [names[label] for label in told.labels]
    assert [row["prediction"] for row in rows] == [names[label] for label in told.predictions]
    assert [[float(row[name]) for name in names] for row in rows] == pytest.approx(
        [pytest.approx(row, abs=1e-6) for row in told.probabilities]
    )


def test_hidden_labels(tiny_pair_run: Record, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(UserError, match="labels of mrpc's test split are hidden.*--write.*peftbench predict"):
        evaluate.main([str(tiny_pair_run.folder), "--split", "test"])
    path = tmp_path / "told.csv"
    result = evaluated(capsys, tiny_pair_run, "--split", "test", "--write", path)
    assert (result["metrics"], result["examples"]) == (None, 9)
    header, *rows = csv.reader(path.read_text().splitlines())
    assert header == ["split", "id", "label", "prediction", "not_equivalent", "equivalent"]
    assert len(rows) == 9
    assert {row[2] for row in rows} == {""}
    assert {row[3] for row in rows} <= {"not_equivalent", "equivalent"}


def test_scores_are_written_as_numbers(tiny_score_run: Record, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "told.csv"
    evaluated(capsys, tiny_score_run, "--write", path)
    header, first, *_ = csv.reader(path.read_text().splitlines())
    assert header == ["split", "id", "label", "prediction"]
    told = tiny_score_run.predictions(tiny_score_run.read().evaluation("validation"))
    assert [float(cell) for cell in first[2:]] == pytest.approx([told.labels[0], told.predictions[0]], rel=1e-5)


def test_the_task_has_moved(
    tiny_pair_run: Record, tiny_data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    lines = (tiny_data_dir / "pairs" / "dev.tsv").read_text().splitlines()
    (moved / "dev.tsv").write_text("\n".join(lines[:6]) + "\n")
    assert evaluated(capsys, tiny_pair_run, "--task-dir", moved)["examples"] == 5


@pytest.mark.parametrize(
    ("fixture", "argv", "message"),
    [
        ("tiny_run", ["--split", "validaton"], "unknown split 'validaton'. Did you mean validation?"),
        ("tiny_run", ["--task-dir", "x"], "--task-dir: this run's task is made of files of your own"),
        ("tiny_pair_run", ["--task-dir", "nowhere"], "nowhere; set task.dir"),
        ("tiny_pair_run", ["--merged"], "--merged: adapter cannot be merged"),
        ("tiny_pair_run", ["--device", "tpu"], "device=tpu is unknown"),
        ("tiny_run", ["--write", "/nowhere/told.csv"], "Cannot write /nowhere/told.csv"),
    ],
)
def test_bad_input(fixture: str, argv: list[str], message: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(UserError) as caught:
        evaluate.main([str(request.getfixturevalue(fixture).folder), *argv])
    assert message in str(caught.value)


@pytest.mark.parametrize("argv", [[], ["x", "--batch-size", "0"], ["x", "--batch-size", "many"]])
def test_bad_arguments(argv: list[str]) -> None:
    with pytest.raises(UserError, match="`peftbench evaluate --help` shows how it is used"):
        evaluate.main(argv)


def test_the_weights_of_a_fusion(train_tiny, tiny_method, tiny_run, capsys: pytest.CaptureFixture) -> None:
    record = train_tiny("opinions", *tiny_method("fusion"), "experiment=weights")
    run = str(record.folder)
    assert evaluate.main([run, "--fusion-weights"]) == 0
    shown = capsys.readouterr().out
    weights = record.read().evaluation().observed["weights"]
    rows = [line.split() for line in shown.splitlines() if line.startswith("layer")]
    assert rows == [["layer", str(n), *(f"{share:.2f}" for share in shares)] for n, shares in enumerate(weights)]
    plot = (record.folder / "evaluations" / "fusion-weights-validation.svg").read_text()
    assert "<svg" in plot and "layer 1" in plot
    assert evaluate.main([run, "--fusion-weights", "--split", "test", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["fusion_weights"]["adapters"] == ["other", "own"]
    assert (record.folder / answer["plot"]).is_file()
    with pytest.raises(UserError, match="is a run of lora"):
        evaluate.main([str(tiny_run.folder), "--fusion-weights"])
