"""`until=decided`: seeds for open comparisons alone, a budget, and one result however often it was stopped."""

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from peftbench.errors import UserError
from peftbench.runs.find import find_runs
from peftbench.runs.result import SECTIONS, Status
from peftbench.sweeps import until
from peftbench.sweeps.until import _projected, train_until_decided
from peftbench.tables.collect import NOT_EVALUATED, OTHER_DATA, STALE, PlannedRun, RunState

UNMEASURED = [f"measure.{section}=false" for section in SECTIONS]

TWO_ROWS = """
title: Two rows
base: [experiment=tiny, model=local, model.path={model}, task=text_file, task.max_length=32,
       task.splits.train={data}, task.splits.validation=0.5, trainer.epochs=3, trainer.batch_size=8,
       trainer.precision=fp32, device=cpu, threads=1, output_dir={outputs}]
seeds: 2
baseline: learns nothing
columns: [accuracy, difference]
rows:
  - {{label: learns nothing, overrides: [method=head, trainer.lr=1e-9]}}
  - {{label: learns, overrides: [method=full, trainer.lr=3e-3]}}
"""


@pytest.mark.long
@pytest.mark.usefixtures("shared_process")
def test_seeds_are_added_until_it_is_told_and_a_stopped_one_goes_on(sweep, tmp_path, tiny_model_dir, capsys):
    data = tmp_path / "opinions.csv"
    data.write_text("text,label\n" + "the film was dull,no\nthe plot was good,yes\n" * 60)
    sweep.spec.write_text(TWO_ROWS.format(model=tiny_model_dir, data=data, outputs=sweep.outputs))
    line = ["until=decided", "most_seeds=4"]
    assert sweep(*line, "budget=0.01s") == 2
    assert "budget=0 s allows not even one seed of every row" in capsys.readouterr().err
    first = [run.result.finished for run in find_runs(sweep.outputs)]
    assert len(first) == 1
    assert sweep(*line) == 0
    shown = capsys.readouterr().out
    assert (
        "6 runs: no comparison is open" in shown
        and "decided: every comparison" in shown
        and "better: learns by at least" in shown
    )
    runs = find_runs(sweep.outputs)
    assert len(runs) == 6 and first[0] in [run.result.finished for run in runs]
    assert sweep(*line, "--format", "json", command="table") == 0
    table = json.loads(capsys.readouterr().out)
    assert table["seeds"] == [0, 1, 2] and any("alpha-spending" in said for said in table["reading"])
    assert not any("missing" in note for note in table["notes"])


@pytest.mark.long
@pytest.mark.usefixtures("shared_process")
@pytest.mark.parametrize("budget", [[], ["budget=1h"]])
def test_a_row_that_fails_stops_no_other(sweep, tmp_path, tiny_model_dir, capsys, budget):
    data = tmp_path / "opinions.csv"
    data.write_text("text,label\n" + "the film was dull,no\nthe plot was good,yes\n" * 10)
    failing = "rows:\n  - {{label: diverges, overrides: [method=full, trainer.lr=1e30]}}"
    spec = TWO_ROWS.replace("rows:", failing).replace("epochs=3", "epochs=1")
    sweep.spec.write_text(spec.format(model=tiny_model_dir, data=data, outputs=sweep.outputs))
    line = ["until=decided", "most_seeds=2", *UNMEASURED]
    assert sweep(*line, *budget) == 1
    shown = capsys.readouterr().out
    assert "compared with none, for a run failed: diverges" in shown and "failed: diverges, seed 0: " in shown
    finished = find_runs(sweep.outputs, status="finished")
    assert sorted(run.result.method for run in finished) == ["full", "full", "head", "head"]
    assert sweep(*line, "--format", "json", command="table") == 0
    table = json.loads(capsys.readouterr().out)
    assert [(pair["row"], pair["other"]) for pair in table["pairs"]] == [("learns nothing", "learns")]


@pytest.mark.long
@pytest.mark.usefixtures("shared_process")
def test_rows_are_looked_at_in_the_way_they_are_shown(sweep, tmp_path, tiny_model_dir, capsys):
    data = tmp_path / "opinions.csv"
    data.write_text("text,label\n" + "the film was dull,no\nthe plot was good,yes\n" * 20)
    dropped = "label: learns, evaluation: {{dropped_layers: 1}}, overrides: [method=adapter, method.bottleneck=4,"
    spec = TWO_ROWS.replace("label: learns, overrides: [method=full,", dropped).replace("epochs=3", "epochs=1")
    sweep.spec.write_text(spec.format(model=tiny_model_dir, data=data, outputs=sweep.outputs))
    line = ["until=decided", "most_seeds=2", *UNMEASURED]
    assert sweep(*line, "hydra/launcher=slurm") == 2
    said = capsys.readouterr().err
    assert "row 'learns' (validation, 1 layer dropped) are made on this machine alone" in said or "pip install" in said
    assert sweep(*line) == 0
    shown = capsys.readouterr().out
    assert "scoring" in shown and "compared with none" not in shown
    assert len(find_runs(sweep.outputs, status="finished")) == 4
    assert sweep(*line, "--format", "json", command="table") == 0
    assert len(json.loads(capsys.readouterr().out)["pairs"]) == 1


@pytest.mark.usefixtures("shared_process")
def test_before_the_first_look_nothing_is_compared(sweep, tmp_path, tiny_model_dir, capsys):
    data = tmp_path / "opinions.csv"
    data.write_text("text,label\n" + "the film was dull,no\nthe plot was good,yes\n" * 20)
    claim = 'claims:\n  - {text: "more learns more", column: accuracy, ascending: [learns nothing, learns]}\n'
    sweep.spec.write_text(TWO_ROWS.format(model=tiny_model_dir, data=data, outputs=sweep.outputs) + claim)
    assert sweep(*UNMEASURED) == 0
    assert "more learns more" in capsys.readouterr().out
    assert sweep("until=decided", "--format", "json", command="table") == 0
    table = json.loads(capsys.readouterr().out)
    (row,) = [row for row in table["rows"] if row["label"] == "learns"]
    assert row["cells"]["difference"]["value"] is not None
    assert row["cells"]["difference"]["low"] is None and row["cells"]["accuracy"]["differs"] is None
    assert "for the first look comes behind 3 seeds of each row" in table["conclusion"] and table["claims"] == []


@pytest.mark.long
@pytest.mark.usefixtures("shared_process")
def test_tuning_counts_in_the_budget_and_seeds_are_added_behind_it(
    sweep, tmp_path, tiny_model_dir, capsys, monkeypatch
):
    data = tmp_path / "opinions.csv"
    data.write_text("text,label\n" + "the film was dull,no\nthe plot was good,yes\n" * 20)
    tunable = TWO_ROWS.replace(", trainer.lr=1e-9", "").replace(", trainer.lr=3e-3", "").replace("epochs=3", "epochs=1")
    sweep.spec.write_text(tunable.format(model=tiny_model_dir, data=data, outputs=sweep.outputs))
    line = ["tuned=1", "until=decided", "most_seeds=2"]
    assert sweep(*line, "budget=0.01s") == 1
    said = capsys.readouterr()
    assert "stopped by the budget of 0 s with 1 of 2 rows tuned; the same command goes on" in said.err
    assert len(find_runs(sweep.outputs)) == 1 and "accuracy" not in said.out.splitlines()[-1]
    with monkeypatch.context() as an_hour_ago:
        an_hour_ago.setattr("peftbench.commands.sweep.time", SimpleNamespace(monotonic=lambda: time.monotonic() - 3600))
        assert sweep(*line, "budget=30m") != 2
    assert "stopped by the budget of 30 min: nothing has been compared" in capsys.readouterr().out
    assert sweep(*line) == 0
    capsys.readouterr()
    assert sweep(*line, "--format", "json", command="table") == 0
    table = json.loads(capsys.readouterr().out)
    assert len(table["tuning"]) == 2 and table["seeds"] == [0, 1]
    assert any("alpha-spending" in reading for reading in table["reading"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["until=maybe"], "until=maybe is unknown: the only one is until=decided"),
        (["budget=4h"], "budget=4h goes with until=decided"),
        (["until=decided", "seeds=3"], "leave it out, or say most_seeds=…"),
        (["until=decided", "explain_spread=true"], "ask for one at a time"),
        (["until=decided", "most_seeds=1"], "most_seeds=1 must be a whole number from 2 to 200"),
        (["until=decided", "budget=soon"], "budget=soon must be a time with its unit, such as 30m or 4h"),
    ],
)
def test_a_mistake_is_one_clear_line(sweep, capsys, settings, message):
    assert sweep(*settings) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("setting", ["until=decided", "tuned=2"])
def test_a_table_says_before_it_is_shown_that_its_spread_is_not_explained(sweep, capsys, setting):
    assert sweep(setting, "--explain-spread", command="table") == 2
    shown, error = capsys.readouterr()
    assert not shown and "explain_spread=true: ask for one at a time" in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("stale", "reason", "mends"),
    [
        ("leave", "made by other code", "stale=rerun trains it again, stale=use takes those of other code as they are"),
        ("use", OTHER_DATA, "stale=rerun trains it again"),
    ],
)
def test_a_run_of_other_code_or_data_is_refused_before_anything_is_trained(monkeypatch, tmp_path, stale, reason, mends):
    found = [
        RunState(PlannedRun(row, seed, [], {"task": {"metrics": ["accuracy"]}}, tmp_path / f"{row}{seed}"), *state)
        for row, state in (("base", (Status.RUNNING, None, None, False)), ("other", (STALE, reason, None, False)))
        for seed in range(4)
    ]
    monkeypatch.setattr(until, "collect", lambda *_: found)
    rows = [SimpleNamespace(label=label) for label in ("base", "other")]
    spec = SimpleNamespace(rows=rows, seeds=list(range(4)), most_seeds=4, baseline="base")
    request = SimpleNamespace(planned=[run.planned for run in found], stale=stale, budget=None, hydra=[], spec=spec)
    with pytest.raises(UserError) as error:
        train_until_decided(request, lambda runs: pytest.fail("it trains"), {}, 0.0)
    assert str(error.value) == f"row 'other', seed 0, is {reason}: until=decided needs it; {mends}"


def test_the_next_seed_s_time_is_of_runs_that_train_and_of_several_at_once():
    def there(label, folder, seconds, status=Status.FINISHED):
        planned = PlannedRun(label, 0, [], {}, Path(folder))
        return RunState(planned, status, None, SimpleNamespace(time=SimpleNamespace(total=seconds)), True)

    def wanted(*names):
        return [PlannedRun(label, 1, [], {}, Path(folder)) for label, folder in names]

    found = [there("a", "a0", 100.0), there("b", "b0", 20.0), there("b", "b1", 20.0, NOT_EVALUATED)]
    assert _projected(wanted(("a", "a1"), ("a, merged", "a1"), ("b", "b2")), found, 1) == 120
    assert _projected(wanted(("b", "b1"), ("b", "b2")), found, 1) == 20, "one lacks its score alone"
    assert _projected(wanted(("a", "a1"), ("b", "b2")), found, 4) == 100, "no less than the longest"
    assert _projected(wanted(*(("b", f"b{n}") for n in range(2, 10))), found, 4) == 40
    assert _projected(wanted(("a", "a1")), [], 1) is None
