"""`peftbench plan`: from records, or from stated assumptions where there are none; mistakes in one line."""

import numpy as np
import pytest
from records import finished_fields

from peftbench.cli import main
from peftbench.runs.predictions import Predictions
from peftbench.runs.record import Record
from peftbench.sweeps.request import read_request

TWO = """
title: Two rows
base: [model=minilm, task=mrpc, trainer.epochs=1]
seeds: 3
baseline: head
columns: [accuracy]
rows:
  - {label: head, overrides: [method=head]}
  - {label: BitFit, overrides: [method=bitfit]}
"""


PREPARED = """
title: Two rows of three runs
base: [model=minilm, task=mrpc, trainer.epochs=1]
seeds: 3
baseline: single
columns: [accuracy]
rows:
  - {label: single, overrides: [method=pfeiffer]}
  - {label: fusion, overrides: [method=fusion, &two "method.adapters={mrpc: run(mrpc), rte: run(rte)}"]}
  - {label: its most used, overrides: [method=fusion, *two], evaluation: {kept_adapters: 1}}
prepare:
  - {label: mrpc, overrides: [method=pfeiffer]}
  - {label: rte, overrides: [method=pfeiffer, task=rte]}
"""


DROPPED = """
title: Two rows of one run
base: [model=minilm, task=mrpc, trainer.epochs=1]
seeds: 3
baseline: all
columns: [accuracy]
rows:
  - {label: without the lowest, overrides: [method=pfeiffer, method.drop=robust], evaluation: {dropped_layers: 1}}
  - {label: all, overrides: [method=pfeiffer, method.drop=robust]}
"""


@pytest.fixture
def plan(tmp_path, tiny_data_dir, capsys):
    """A function that plans a table of two rows with more settings and returns exit code, output and error."""
    (tmp_path / "conf" / "table").mkdir(parents=True)
    (tmp_path / "conf" / "table" / "two.yaml").write_text(TWO)
    (tmp_path / "conf" / "table" / "one.yaml").write_text(TWO.rpartition("  - ")[0])
    (tmp_path / "conf" / "table" / "prepared.yaml").write_text(PREPARED)
    (tmp_path / "conf" / "table" / "dropped.yaml").write_text(DROPPED)

    where = [f"hydra.searchpath=[file://{tmp_path / 'conf'}]", f"output_dir={tmp_path / 'outputs'}"]
    data = f"task.dir={tiny_data_dir / 'pairs'}"

    def plan(*settings, table="two"):
        code = main(["plan", f"table={table}", *where, *([] if "task.dir" in str(settings) else [data]), *settings])
        plan.shown, err = capsys.readouterr()
        return code, " ".join(plan.shown.split()), err

    plan.lines = ["table=two", *where, data]
    return plan


def test_without_any_run_it_says_what_it_assumes(plan, tmp_path):
    code, out, _ = plan("--plot", str(tmp_path / "plan.svg"), "seeds=4")
    assert code == 0 and "Two rows: 2 rows, minilm on mrpc, accuracy on" in out and "examples of validation" in out
    assert "assumed, for no two rows have two seeds yet: two rows differ on 13 % of the examples" in out
    assert "durations: not known" in out and "To tell 1 point: no number of seeds does" in out
    assert (tmp_path / "plan.svg").read_text().startswith("<?xml")


def record_runs(lines, labels, accuracies):
    """Record finished runs of the rows named, one a seed, of 400 examples, as a table would find them."""
    generator = np.random.default_rng(0)
    for run in read_request(lines).planned:
        if run.label in labels and run.seed < len(accuracies):
            truth = np.arange(400) % 2
            said = np.where(generator.random(400) < accuracies[run.seed], truth, 1 - truth)
            record = Record.create(run.folder, run.config, run.overrides)
            record.write_predictions({"validation": Predictions(truth, said, np.eye(2)[said])}, ["no", "yes"])
            scores = {"accuracy": float(np.mean(truth == said)), "f1": 0.5}
            record.finish(**finished_fields({"validation": scores}, {"train": 320, "validation": 400}, train=50.0))


def test_spreads_and_durations_are_those_of_the_runs_there_are(plan):
    record_runs(plan.lines, ("head", "BitFit"), (0.7, 0.75, 0.8))
    code, out, _ = plan()
    assert code == 0 and "accuracy on 400 examples of validation" in out
    assert "spread: measured, 3 seeds of head, BitFit" in out and "durations: recorded of head, BitFit" in out
    three, five = (next(line for line in plan.shown.splitlines() if line.split()[:1] == [n]) for n in "35")
    assert three.split()[4:] == ["0", "0", "s"] and five.split()[4:] == ["4", "4", "min"]  # of 60 s each
    assert float(five.split()[1]) < float(three.split()[1])


def test_one_row_s_runs_tell_how_long_the_other_takes(plan):
    record_runs(plan.lines, ("head",), (0.7,))
    _, out, _ = plan()
    assert "assumed, for no two rows have two seeds yet" in out
    assert "durations: recorded of head; other rows as the median of these" in out


def test_what_is_trained_once_counts_once_and_what_is_prepared_counts(plan):
    """A row's own adapter is a prepared one, and two rows show one fusion: three runs a seed, not three or five."""
    code, out, _ = plan(table="prepared")
    assert code == 0 and "Two rows of three runs: 3 rows" in out
    runs = {line.split()[0]: line.split()[4] for line in plan.shown.splitlines() if line.split()[-1:] == ["–"]}
    assert runs["2"] == "6" and runs["3"] == "9"


def test_a_run_is_there_whatever_of_it_is_not_scored_yet(plan):
    record_runs(["table=dropped", *plan.lines[1:]], ("all",), (0.7, 0.8))
    code, out, _ = plan(table="dropped")
    assert code == 0
    runs = {line.split()[0]: line.split()[4] for line in plan.shown.splitlines() if line.split()[0:1] and "min" in line}
    assert runs["3"] == "1" and runs["5"] == "3"


def test_images_are_counted_without_being_opened(plan, tmp_path):
    for place, count in (("train", 2), ("val", 30)):
        for name in ("cat", "dog"):
            (tmp_path / place / name).mkdir(parents=True)
            for number in range(count):
                (tmp_path / place / name / f"{number}.png").touch()
    code, out, _ = plan("task=image_folder", "model=vit_base", f"task.dir={tmp_path}")
    assert code == 0 and "vit_base on image_folder, accuracy on 60 examples of validation" in out


def test_without_data_it_assumes_their_number_and_says_why(plan):
    """It asks nobody on the network either."""
    code, out, _ = plan("task.dir=/nowhere")
    assert code == 0 and "accuracy on 1,000 examples" in out and "assumed: 1,000 examples, for " in out


@pytest.mark.parametrize(
    "settings, table, expected",
    [
        (["--plot", "plan.pdf"], "two", "--plot plan.pdf must end in .svg or .png"),
        (["table.delta=1e-300"], "two", "table=two: table.delta=1e-300 must be a number of points from 0.001"),
        (["until=decided"], "two", "each look of until=decided, with a part of the 5 %, tells less: leave it out"),
        (["seeds=0"], "two", "seeds=0 must be a number of seeds"),
        ([], "one", "table=one has one row: there is nothing to tell it from"),
        ([], "tow", "table=tow: there is no such table. Choose from"),
    ],
)
def test_mistakes(plan, settings, table, expected):
    code, _, error = plan(*settings, table=table)
    assert code == 2 and expected in error and error.count("\n") == 1
