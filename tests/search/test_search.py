"""`peftbench sweep search=…` as a user types it, on the tiny model."""

import csv
import json
import os
import re
import signal
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL

import forked
import pytest
from records import age

from peftbench.cli import main
from peftbench.runs.find import find_runs

pytestmark = pytest.mark.usefixtures("shared_process")

RATES = "trainer.lr=1e-4,1e-2"


@pytest.fixture
def search(tmp_path, tiny_model_dir, tiny_data_dir):
    """A function that runs `peftbench sweep` on the tiny model in this process; `.outputs` is where records go."""
    files = {name: tiny_data_dir / "opinions" / f"{name}.csv" for name in ("train", "validation", "test")}
    outputs = tmp_path / "outputs"
    settings = ["method=lora", "model=local", f"model.path={tiny_model_dir}", "task=text_file", "task.max_length=32"]
    settings += [f"task.splits.{name}={path}" for name, path in files.items()]
    settings += ["trainer.epochs=2", "trainer.batch_size=8", "device=cpu", "threads=1", f"output_dir={outputs}"]

    def line(*argv: str) -> list[str]:
        return ["sweep", *settings, *argv]

    def run(*argv: str) -> int:
        return main(line(*argv))

    run.outputs, run.line = outputs, line
    return run


def folder(search) -> Path:
    (found,) = (search.outputs / "search" / "searches").iterdir()
    return found


def trials(search) -> list[dict[str, str]]:
    with (folder(search) / "trials.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def winner(search) -> dict:
    return json.loads((folder(search) / "winner.json").read_text())


def written(search) -> dict[str, int]:
    return {run.id: run.record.result_path.stat().st_mtime_ns for run in find_runs(search.outputs)}


def test_a_grid_is_trained_and_its_winner_runs_again_on_fresh_seeds(search, capsys):
    line = ["search=grid", RATES, "method.rank=2,4", "search.winner_seeds=2"]
    assert search(*line) == 0
    shown = capsys.readouterr().out
    runs = find_runs(search.outputs)
    tried = [run for run in runs if run.result.seed == 0]
    assert len(tried) == 4 and len(runs) == 6
    assert {run.result.experiment for run in runs} == {"search"}
    assert not any(run.result.latency for run in runs)

    told, best = trials(search), winner(search)
    assert [(row["trainer.lr"], row["method.rank"]) for row in told] == [
        ("0.0001", "2"),
        ("0.0001", "4"),
        ("0.01", "2"),
        ("0.01", "4"),
    ]
    assert best["winner"]["validation"]["accuracy"] == max(float(row["accuracy"]) for row in told)
    assert best["chosen_on"] == "validation" and best["best_of"] == 4
    fresh = best["fresh_seeds"]
    assert fresh["seeds"] == [1, 2]
    again = [run.result for run in runs if run.result.seed != 0]
    assert {run.id for run in again} == set(fresh["runs"])
    for split in ("validation", "test"):
        scores = [run.metrics[split]["accuracy"] for run in again]
        assert fresh[split]["accuracy"]["mean"] == pytest.approx(sum(scores) / 2)
        assert fresh[split]["accuracy"]["n"] == 2
    assert "chosen on validation, by accuracy" in shown and "the best of 4 trials" in shown and "optimistic" in shown
    assert re.search(r"test +accuracy .* ± .* nothing was chosen on it", shown)
    assert best["train"] in shown
    assert set(best["winner"]["overrides"]) < set(best["train"].split())

    before = written(search)
    assert search(*line) == 0
    assert "to train" not in capsys.readouterr().out
    assert written(search) == before
    assert search(*line, "search.winner_seeds=3") == 0
    assert "2 of 3 runs are there, 1 to train" in capsys.readouterr().out
    assert winner(search)["fresh_seeds"]["seeds"] == [1, 2, 3]


def test_trials_run_with_the_seed_given_and_the_winner_without_it(search):
    assert search("search=grid", RATES, "seed=5", "trainer.epochs=1", "search.winner_seeds=1") == 0
    assert sorted(run.result.seed for run in find_runs(search.outputs)) == [5, 5, 6]
    assert "seed=" not in winner(search)["train"]
    assert winner(search)["fresh_seeds"]["test"]["accuracy"]["sd"] is None


def test_a_diverging_trial_is_shown_and_does_not_win(search, capsys):
    line = ["search=grid", "trainer.lr=1e30,1e-3", "trainer.clip=null", "search.winner_seeds=1"]
    assert search(*line) == 1
    shown = capsys.readouterr().out
    assert "failed: the loss became" in shown and "the only trial with a score" in shown
    assert winner(search)["winner"]["overrides"] == ["trainer.lr=0.001"]
    assert [row["status"] for row in trials(search)] == ["failed", "finished"]


def test_no_trial_with_a_score_is_one_line(search, capsys):
    assert search("search=grid", "trainer.lr=1e30,1e31", "trainer.clip=null") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("peftbench: all 2 trials have failed, there is no winner: the loss became")
    assert [row["status"] for row in trials(search)] == ["failed", "failed"]
    assert not (folder(search) / "winner.json").exists()


def test_a_mistake_that_shows_in_a_trial(search, capsys):
    assert search("search=grid", "method.rank=99,2", "search.winner_seeds=1") == 2
    assert "missing: method.rank=99" in " ".join(capsys.readouterr().out.split())
    assert winner(search)["winner"]["overrides"] == ["method.rank=2"]
    assert search("search=grid", "method.rank=99,98") == 2
    assert "all 2 trials have failed" in capsys.readouterr().err


@pytest.mark.long
def test_the_choice_does_not_look_at_the_test_split(search):
    line = ["search=grid", RATES, "method.rank=2,4", "trainer.epochs=1", "search.winner_seeds=1"]
    search(*line)
    told, best = trials(search), winner(search)
    for run in find_runs(search.outputs):
        won = run.id == best["winner"]["run"]
        validation, test = run.result.evaluations
        other = {"accuracy": float(not won), "f1": float(not won), "loss": 0.0}
        run.record.update(evaluations=[validation, replace(test, metrics=other)])
    assert search(*line) == 0
    assert trials(search) == told
    assert winner(search)["winner"] == best["winner"]


@pytest.mark.long
def test_trials_of_other_code_do_not_take_part(search, capsys):
    line = ["search=grid", RATES, "trainer.epochs=1", "search.winner_seeds=1"]
    search(*line)
    for run in find_runs(search.outputs):
        age(run.record)
    capsys.readouterr()
    assert search(*line) == 1
    assert "no trial has a score: 2 of 2 are of other code; stale=rerun" in capsys.readouterr().err
    assert search(*line, "stale=use") == 0
    assert {run.result.origin.code for run in find_runs(search.outputs)} == {"0ld"}
    assert search(*line, "stale=rerun") == 0
    assert "0ld" not in {run.result.origin.code for run in find_runs(search.outputs)}


@pytest.mark.long
def test_a_random_search_draws_goes_on_and_stops_where_the_space_ends(search, capsys):
    line = ["search=random", "trainer.lr=tag(log,interval(1e-4,1e-2))", "method.rank=2,4", "trainer.epochs=1"]
    line += ["search.winner_seeds=1"]
    assert search(*line, "search.trials=2") == 0
    first = trials(search)
    assert all(1e-4 <= float(row["trainer.lr"]) <= 1e-2 for row in first)
    capsys.readouterr()
    assert search(*line, "search.trials=3") == 0
    assert "2 of 3 runs are there, 1 to train" in capsys.readouterr().out
    assert trials(search)[:2] == first
    assert len(list((search.outputs / "search" / "searches").iterdir())) == 1


def test_a_space_smaller_than_the_trials_is_tried_whole(search, capsys):
    assert search("search=random", RATES, "trainer.epochs=1", "search.winner_seeds=1") == 0
    assert "the space has 2 combinations" in capsys.readouterr().out
    assert {row["trainer.lr"] for row in trials(search)} == {"0.0001", "0.01"}


@pytest.mark.long
@pytest.mark.skipif(find_spec("optuna") is None, reason="needs pip install 'peftbench[optuna]'")
def test_optuna_proposes_and_its_trials_are_ordinary_runs(search, capsys):
    line = ["search=optuna", "trainer.lr=tag(log,interval(1e-4,1e30))", "trainer.clip=null", "method.rank=range(2,5)"]
    line += ["search.trials=5", "trainer.epochs=1", "search.winner_seeds=1"]
    code = search(*line, "hydra.sweeper.sampler.n_startup_trials=3")
    told = trials(search)
    assert code == int(any(row["status"] == "failed" for row in told))
    assert 3 <= len(told) <= 5
    assert {row["method.rank"] for row in told} <= {"2", "3", "4"}
    best = max((row for row in told if row["accuracy"]), key=lambda row: float(row["accuracy"]))
    assert winner(search)["winner"]["validation"]["accuracy"] == float(best["accuracy"])
    finished = {run.id: written(search)[run.id] for run in find_runs(search.outputs, status="finished")}
    capsys.readouterr()
    search(*line, "hydra.sweeper.sampler.n_startup_trials=3")
    assert [row["run"] for row in trials(search)] == [row["run"] for row in told]
    assert {run: written(search)[run] for run in finished} == finished


def test_optuna_that_is_not_installed_is_said(search, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "hydra_plugins.hydra_optuna_sweeper._impl", raising=False)
    assert search("search=optuna", RATES) == 2
    assert capsys.readouterr().err == "peftbench: search=optuna is not installed: pip install 'peftbench[optuna]'\n"


@pytest.mark.long
def test_an_interrupted_search_shows_what_there_is(search):
    command = ["-m", "peftbench", *search.line("search=grid", RATES, "trainer.epochs=50")]
    process = forked.Popen(command, stdout=DEVNULL, stderr=DEVNULL)
    give_up = time.time() + 60
    while time.time() < give_up and not list(search.outputs.glob("search/*/checkpoint.pt")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert [row["status"] for row in trials(search)] == ["interrupted", "missing"]


MISTAKES = [
    (["search=grid", "table=smoke", RATES], "a sweep has either table=… or search=…, not both"),
    ([], "say which table, or which search: table=…"),
    (["search=gird", RATES], "search=gird: there is no such search. Did you mean grid?"),
    (["search=grid", RATES, "search.trials=3"], "search.trials=3: search=grid has no key 'trials'. Choose from: name,"),
    (["search=random", RATES, "search.trails=3"], "search=random has no key 'trails'. Did you mean trials?"),
    (["search=random", RATES, "search.trials=0"], "search.trials=0 must be from 1 to 10,000"),
    (["search=random", RATES, "search.trials=100000000"], "search.trials=100000000 must be from 1 to 10,000"),
    (["search=random", RATES, "search.trials=null"], "search=random needs a number of trials"),
    (["search=random", RATES, "search.trials=few"], "search.trials=few is not of type int"),
    (["search=grid"], "there is nothing to search"),
    (["search=grid", "trainer.lr=interval(1e-4,1e-2)"], "a grid needs a list of values; search=random draws"),
    (["search=grid", RATES, "seed=0,1"], "seed=0,1: seed is no hyper-parameter"),
    (["search=grid", "task=rte,mrpc"], "task=rte,mrpc: task is no hyper-parameter"),
    (["search=grid", RATES, "method.rnk=1,2"], "method.rnk=1: method=lora has no key 'rnk'. Did you mean rank?"),
    (["search=grid", RATES, "method.rank=2,many"], "method.rank=many is not of type int"),
    (["search=grid", "trainer.lr=1e-4,[1e-3"], "cannot read 'trainer.lr=1e-4,[1e-3'"),
    (["search=grid", RATES, "stale=keep"], "stale=keep is unknown: choose from leave, use, rerun"),
    (["search=grid", RATES, "hydra/launcher=slrm"], "there is no such hydra/launcher. Did you mean slurm?"),
]


@pytest.mark.parametrize(("argv", "says"), MISTAKES, ids=lambda value: " ".join(value)[:40])
def test_mistakes_in_the_line(search, capsys, argv, says):
    assert search(*argv) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not search.outputs.exists()
