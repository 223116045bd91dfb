"""What a spread comes from: its figures, and that the seeds of each source act on it alone."""

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import chi2

from peftbench.tables.export.spread import to_terminal
from peftbench.tables.spread import SOURCES, Deviation, SpreadSources, deviation

ONE_ROW = """
title: One row
base: [experiment=tiny, model=local, model.path={model}, task=text_file, task.max_length=32, {splits}
       trainer.epochs=1, trainer.batch_size=8, trainer.precision=fp32, device=cpu, threads=1, output_dir={outputs}]
seeds: 2
baseline: head
columns: [accuracy]
rows:
  - {{label: head, overrides: [method=head]}}
"""


def printed(spreads):
    console = Console(width=200)
    with console.capture() as captured:
        console.print(to_terminal(spreads, "accuracy", "test"))
    return captured.get()


def test_a_deviation_has_the_interval_of_normal_scores():
    generator = np.random.default_rng(0)
    held = []
    for _ in range(8000):
        found = deviation(list(0.8 + 0.02 * generator.standard_normal(4)))
        held.append(found.low <= 2.0 <= found.high)
    assert 0.945 < np.mean(held) < 0.955
    found = deviation([0.80, 0.82, 0.86])
    assert found.value == pytest.approx(100 * np.std([0.80, 0.82, 0.86], ddof=1))
    assert found.high == pytest.approx(found.value * np.sqrt(2 / chi2.ppf(0.025, 2)))
    assert deviation([0.8]).value is None


def test_equal_scores_have_no_interval():
    assert deviation([0.8, 0.8]) == Deviation(2, 0.0, None, None)
    shown = printed([SpreadSources("lora", dict.fromkeys(SOURCES, Deviation(0)), deviation([0.8, 0.8]), 1.0)])
    assert " 0.00, 2 runs" in shown and "…" not in shown


@pytest.mark.parametrize("label", ["a\nb", "a\tb", "a\u202eb", "a\x1b[31mb"])
def test_an_odd_label_is_written_out_on_one_line(label):
    shown = printed([SpreadSources(label, dict.fromkeys(SOURCES, Deviation(0)), Deviation(0), 1.0)])
    assert ascii(label)[1:-1] in shown and label not in shown


def test_each_seed_acts_on_its_source_alone(train_tiny):
    def losses(*overrides):
        record = train_tiny("opinions", "method=lora", "trainer.epochs=1", "trainer.max_steps=3", *overrides)
        return [row["loss"] for row in record.history()], record.folder.name

    apart = ["seed_of.init=0", "seed_of.order=0", "seed_of.dropout=0"]
    still = ["model.dropout=0"]
    alike, _ = losses(*apart, *still)
    assert losses(*apart, *still, "seed_of.dropout=1")[0] == alike, "there is no dropout that could differ"
    assert losses(*apart, *still, "seed=5")[0] == alike, "nothing is left that follows it"
    assert losses(*apart, *still, "seed_of.order=1")[0] != alike
    assert losses(*apart, *still, "seed_of.init=1")[0] != alike
    with_dropout, _ = losses(*apart, "model.dropout=0.3")
    assert losses(*apart, "model.dropout=0.3", "seed_of.dropout=1")[0] != with_dropout
    assert losses("seed_of.init=null")[1] == losses()[1] != losses(*apart)[1], "a run's name tells them apart"


@pytest.mark.long
@pytest.mark.usefixtures("shared_process")
def test_a_sweep_trains_what_tells_and_the_table_shows_it(sweep, tiny_model_dir, tiny_data_dir, capsys):
    files = {name: tiny_data_dir / "opinions" / f"{name}.csv" for name in ("train", "validation", "test")}
    splits = " ".join(f"task.splits.{name}={path}," for name, path in files.items())
    sweep.spec.write_text(ONE_ROW.format(model=tiny_model_dir, splits=splits, outputs=sweep.outputs))
    assert sweep("--explain-spread", command="table") == 0
    shown = capsys.readouterr().out
    assert "4 runs are missing for it: peftbench sweep table=tiny" in shown and "explain_spread=true" in shown
    assert sweep("explain_spread=true") == 0
    assert "0 of 6 runs are there, 6 to train" in capsys.readouterr().out
    assert sweep("--explain-spread", command="table") == 0
    shown = capsys.readouterr().out
    assert "missing" not in shown and shown.count(", 2 runs") == 4
    assert "initialisation" in shown and "order of batches" in shown
