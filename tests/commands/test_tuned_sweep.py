"""`peftbench sweep table=… tuned=K`: as many trials for every row, the best of them on fresh seeds."""

import json
import re

import pytest
from conftest import ROOT

from peftbench.runs.find import find_runs
from peftbench.sweeps.tuning import TUNING_SEED

pytestmark = pytest.mark.long


def test_rows_are_tuned_alike_and_shown_on_fresh_seeds(sweep, capsys):
    assert sweep("tuned=2", command="table") == 2
    error = capsys.readouterr().err
    assert "row 'head' is not tuned yet, 2 of 2 trials are lacking" in error

    assert sweep("tuned=2") == 0
    shown = capsys.readouterr().out
    assert "tuning 3 rows, 2 trials each" in shown
    trials = [run for run in find_runs(sweep.outputs) if run.record.config()["seed"] == TUNING_SEED]
    assert len(trials) == 6
    assert {run.record.folder.parent.name for run in trials} == {"tiny-tuning"}
    table = json.loads((sweep.outputs / "tiny" / "tables" / "tiny" / "table.json").read_text())
    for row, tuned in zip(table["rows"], table["tuning"], strict=True):
        assert tuned["row"] == row["label"] and tuned["failed"] == 0
        of_row = [run for run in trials if run.result.method == row["runs"][0]["config"]["method"]["name"]]
        scores = [100 * run.result.metrics["validation"]["accuracy"] for run in of_row]
        assert sorted(tuned["scores"]) == pytest.approx(sorted(scores))
        low, high = sorted(scores)
        assert tuned["expected"] == pytest.approx([(low + high) / 2, (low + 3 * high) / 4])
        # shown: the best trial's settings, other seeds
        best = max(of_row, key=lambda run: run.result.metrics["validation"]["accuracy"]).record.config()
        ties = low == high
        for run in row["runs"]:
            assert run["used"] and run["seed"] in (0, 1)
            assert ties or run["config"]["trainer"]["lr"] == best["trainer"]["lr"]
            assert f"trainer.lr={run['config']['trainer']['lr']:g}" in " ".join(tuned["settings"])
    assert re.search(r"best of 1 +best of 2 +settings", shown)

    before = {run.id: run.record.result_path.stat().st_mtime_ns for run in find_runs(sweep.outputs)}
    assert sweep("tuned=2") == 0
    assert "to train" not in capsys.readouterr().out
    assert before == {run.id: run.record.result_path.stat().st_mtime_ns for run in find_runs(sweep.outputs)}
    for name in ("markdown", "html"):
        assert sweep("tuned=2", "--format", name, command="table") == 0
        assert "expected best of k trials" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tuned=0"], "tuned=0 must be a number of trials"),
        (["tuned=2", "seeds=[1000,1001]"], "seed 1000 is that of the trials"),
        (["tuned=2", "explain_spread=true"], "one at a time"),
        (["tuned=2", "trainer.lr=1e-3"], "row 'head': there is nothing to tune, for trainer.lr are set"),
    ],
)
def test_a_mistake_is_one_line(sweep, capsys, words, message):
    assert sweep(*words) == 2
    assert message in capsys.readouterr().err
    assert not find_runs(sweep.outputs)


def test_every_method_has_a_space_with_a_learning_rate_around_its_recipe():
    for path in (ROOT / "conf" / "method").glob("*.yaml"):
        text = path.read_text()
        if "search: {}" in text:  # nothing trains
            continue
        rate = float(re.search(r"recipe: .*\blr: ([\d.e-]+)", text)[1])
        low, high = map(float, re.search(r"trainer\.lr: 'tag\(log,interval\(([\d.e-]+),([\d.e-]+)\)\)'", text).groups())
        assert (low, high) == pytest.approx((rate / 10, rate * 10)), path
