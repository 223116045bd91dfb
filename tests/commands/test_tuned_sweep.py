"""`peftbench sweep table=… tuned=K`: as many trials for every row, the best of them on fresh seeds."""

import json
import re

import pytest
from conftest import ROOT
from records import age

from peftbench.runs.find import find_runs
from peftbench.search.tuning import TUNING_SEED

pytestmark = pytest.mark.usefixtures("shared_process")


@pytest.mark.long
def test_rows_are_tuned_alike_and_shown_on_fresh_seeds(sweep, capsys):
    text = sweep.spec.read_text()
    sweep.spec.write_text(text[: text.index("  - label: adapter")].replace(", latency, step, switch", ""))
    words = ["tuned=2", "seeds=1"]
    assert sweep(*words, command="table") == 2
    assert "row 'head' is not tuned yet, 2 of 2 trials are lacking" in capsys.readouterr().err

    assert sweep(*words) == 0
    shown = capsys.readouterr().out
    assert "tuning 2 rows, 2 trials each" in shown
    assert re.search(r"best of 1 +best of 2 +settings", shown)
    trials = [run for run in find_runs(sweep.outputs) if run.record.config()["seed"] == TUNING_SEED]
    assert len(trials) == 4
    assert {run.record.folder.parent.name for run in trials} == {"tiny-tuning"}
    table = json.loads((sweep.outputs / "tiny" / "tables" / "tiny" / "table.json").read_text())
    for row, tuned in zip(table["rows"], table["tuning"], strict=True):
        assert tuned["row"] == row["label"] and tuned["failed"] == 0
        (run,) = row["runs"]
        of_row = [trial for trial in trials if trial.result.method == run["config"]["method"]["name"]]
        scores = {trial.record.config()["trainer"]["lr"]: trial.result.metrics["validation"] for trial in of_row}
        low, high = sorted(100 * of_trial["accuracy"] for of_trial in scores.values())
        assert sorted(tuned["scores"]) == pytest.approx([low, high])
        assert tuned["expected"] == pytest.approx([(low + high) / 2, (low + 3 * high) / 4])
        # shown: the best trial's settings, another seed
        assert run["used"] and run["seed"] == 0
        assert 100 * scores[run["config"]["trainer"]["lr"]]["accuracy"] == pytest.approx(high)

    before = {run.id: run.record.result_path.stat().st_mtime_ns for run in find_runs(sweep.outputs)}
    assert sweep(*words) == 0
    assert "to train" not in capsys.readouterr().out
    assert before == {run.id: run.record.result_path.stat().st_mtime_ns for run in find_runs(sweep.outputs)}

    age(trials[0].record)
    assert sweep(*words) == 2
    assert "1 of 2 trials are of other code or data: stale=rerun" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tuned=0"], "tuned=0 must be a number of trials"),
        (["tuned=2", "seeds=[1000,1001]"], "seed 1000 is that of the trials"),
        (["tuned=2", "explain_spread=true"], "one at a time"),
        (
            ["tuned=2", "trainer.lr=1e-3"],
            "row 'head': there is nothing to tune, all of its space is set already: trainer.lr",
        ),
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
