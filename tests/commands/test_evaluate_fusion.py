"""`peftbench evaluate RUN --keep-adapters` and `--fusion-weights`: a fusion pruned, and what its adapters weigh."""

import json
import shutil

import pytest

from peftbench.commands import evaluate
from peftbench.errors import UserError
from peftbench.runs.record import Record


@pytest.fixture(scope="module")
def fusion_run(train_tiny) -> Record:
    parts = {
        name: train_tiny("opinions", "method=pfeiffer", "method.bottleneck=4", f"seed={seed}", "trainer.lr=0.05")
        for seed, name in enumerate("abc")
    }
    named = ", ".join(f"{name}: {record.folder}" for name, record in parts.items())
    return train_tiny(
        "opinions", "method=fusion", f"method.adapters={{{named}}}", "trainer.lr=0.01", "measure.seconds=0",
        "measure.batches=[1]", "measure.lengths=[8]",
    )  # fmt: skip


@pytest.fixture
def record(fusion_run, tmp_path) -> Record:
    return Record(shutil.copytree(fusion_run.folder, tmp_path / fusion_run.folder.name))


def evaluated(capsys, record: Record, *argv: str):
    assert evaluate.main([str(record.folder), "--device", "cpu", "--json", *argv]) == 0
    return json.loads(capsys.readouterr().out)


def test_each_k_is_scored_with_its_latency_and_its_most_used_adapters(record, capsys):
    one, two, three = evaluated(capsys, record, "--keep-adapters", "each", "--latency")
    assert [one["kept_adapters"], two["kept_adapters"], three["kept_adapters"]] == [1, 2, 3]
    own = record.read().evaluation()
    assert three["metrics"] == pytest.approx(own.metrics, rel=1e-5), "pruned to all it is the run's own"
    assert one["metrics"]["loss"] != pytest.approx(own.metrics["loss"], rel=1e-5)
    on_train = evaluated(capsys, record, "--split", "train", "--fusion-weights")["fusion_weights"]["weights"]
    for kept in (1, 2):
        stored = record.read().evaluation(kept_adapters=kept)
        for weights, trained in zip(stored.observed["weights"], on_train, strict=True):
            most = sorted(range(3), key=lambda number: -trained[number])[:kept]
            assert [number for number, weight in enumerate(weights) if weight] == sorted(most)
    assert stored.metrics == two["metrics"] and stored.latency == two["latency"]
    assert len(record.predictions(stored).labels) == own.examples
    assert record.read().evaluation() == own, "the run's own scores stay"


def test_what_a_reader_sees(record, capsys):
    assert evaluate.main([str(record.folder), "--device", "cpu", "--keep-adapters", "1-2"]) == 0
    header, one, two, _ = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["adapters", "kept"] and (one.split()[0], two.split()[0]) == ("1", "2")
    assert evaluate.main([str(record.folder), "--device", "cpu", "--keep-adapters", "2"]) == 0
    assert "21 examples, adapters kept: 2" in capsys.readouterr().out


def test_plots_under_different_conditions_are_different_files(record, capsys):
    conditions = ([], ["--drop", "1"], ["--keep-adapters", "2"])
    plots = [evaluated(capsys, record, "--fusion-weights", *argv)["plot"] for argv in conditions]
    ends = ("validation", "validation-drop1", "validation-keep2")
    assert plots == [f"evaluations/fusion-weights-{end}.svg" for end in ends]
    assert len({(record.folder / plot).read_text() for plot in plots}) == 3


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--keep-adapters", "4"], "--keep-adapters 4: this fusion has 3 adapters, so choose 1 to 3"),
        (["--keep-adapters", "0"], "--keep-adapters 0: this fusion has 3"),
        (["--keep-adapters", "1-99999999999"], "--keep-adapters 99999999999: this fusion has 3"),
        (["--keep-adapters", "two"], "--keep-adapters two: say how many at each place"),
        (["--keep-adapters", "1", "--drop", "1"], "--keep-adapters with --drop: each of them is scored by itself"),
        (["--keep-adapters", "each", "--write", "x.csv"], "predictions of one number of adapters"),
        (["--keep-adapters", "each", "--fusion-weights"], "are of one number of adapters"),
    ],
)
def test_a_mistake_is_one_line(argv, message, record):
    before = record.result_path.read_bytes()
    with pytest.raises(UserError) as caught:
        evaluate.main([str(record.folder), *argv])
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert record.result_path.read_bytes() == before


def test_another_method_has_no_adapters_to_keep(tiny_run):
    with pytest.raises(UserError, match="--keep-adapters: lora is made of no adapters"):
        evaluate.main([str(tiny_run.folder), "--keep-adapters", "1"])
