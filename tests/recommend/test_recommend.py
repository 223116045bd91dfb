"""`peftbench recommend` on a file with a planted winner, and on files that nothing can be learned from."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from peftbench.cli import main
from peftbench.recommend import stages
from peftbench.runs.find import find_runs
from peftbench.tables.collect import collect

CANDIDATES = """
title: Candidates
base: [model=local, model.path={model}, task.max_length=32, trainer.batch_size=8, trainer.epochs=4,
       trainer.precision=fp32, device=cpu, threads=1, measure.seconds=0.02,
       "measure.batches=[1]", "measure.lengths=[8]"]
seeds: 2
split: test
baseline: learns
columns: [share, accuracy, difference, latency, memory]
rows:
  - {{label: learns nothing, overrides: [method=head, trainer.lr=1e-9]}}
  - {{label: learns, overrides: [method=full, trainer.lr=3e-3]}}
  - {{label: nor this, overrides: [method=adapter, method.bottleneck=2, trainer.lr=1e-9]}}
"""


@pytest.fixture
def recommend(tmp_path, tiny_model_dir, monkeypatch):
    """A function that runs the command on a file of the lines given; `.outputs` is where records go."""
    (tmp_path / "conf" / "table").mkdir(parents=True)
    (tmp_path / "conf" / "table" / "few.yaml").write_text(CANDIDATES.format(model=tiny_model_dir))
    monkeypatch.chdir(tmp_path)

    def run(rows, *options, text="The Text", label="is it, so?"):
        file = run.file
        file.write_text("\n".join(['The Text,"is it, so?"', *rows]) + "\n")
        settings = ["table=few", f"hydra.searchpath=[file://{tmp_path / 'conf'}]"]
        return main(["recommend", str(file), "--text", text, "--label", label, *settings, *options])

    run.outputs, run.file = tmp_path / "outputs", tmp_path / "my opinions.csv"
    return run


def opinions(count, labels=("yes", "no")):
    words = {"yes": "good fine", "no": "bad dull"}
    said = [labels[number % len(labels)] for number in range(count)]
    return [f"the film {number} was {words[label]},{label}" for number, label in enumerate(said)]


@pytest.mark.long
@pytest.mark.usefixtures("shared_process")
def test_the_planted_winner_is_recommended_and_nothing_is_trained_twice(recommend, capsys, monkeypatch):
    assert recommend(opinions(240)) == 0
    shown = capsys.readouterr().out
    assert "stage 1: 3 candidates, 25% of their training" in shown
    assert "Take learns: accuracy" in shown
    folder = next(recommend.outputs.glob("recommend-my-opinions-*/tables/recommend"))
    said = json.loads((folder / "recommendation.json").read_text())
    assert said["questions"][0]["answer"] == "learns" and "method=full" in said["questions"][0]["command"]
    assert {"table.html", "table.md", "table.csv"} <= {path.name for path in folder.iterdir()}
    page = (folder / "table.html").read_text()
    assert "Take learns: accuracy" in page and "learns is trained by: peftbench train" in page
    runs = find_runs(recommend.outputs)
    assert len(runs) == 3 + 2 * 2
    before = {run.id: run.result.finished for run in runs}
    assert recommend(opinions(240)) == 0
    assert {run.id: run.result.finished for run in find_runs(recommend.outputs)} == before
    assert recommend(opinions(240), "--max-share", "50", "--budget", "100h") == 0
    shown = capsys.readouterr().out
    assert (
        "out: learns: parameter share 100 %, over 50" in shown and "Take learns:" not in shown.rpartition("limits:")[2]
    )
    page = (folder / "table.html").read_text()
    assert "Take learns:" not in page and "limits: share ≤ 50 %" in page
    assert "out: learns: parameter share 100 %, over 50" in page
    monkeypatch.setattr("peftbench.tables.collect.is_current", lambda result: False)
    assert recommend(opinions(240)) == 2
    assert "stale=rerun trains them again, stale=use takes them" in capsys.readouterr().err
    assert recommend(opinions(240), "stale=use") == 0
    assert "Take learns: accuracy" in capsys.readouterr().out

    def without_last_seed(planned, *settings):
        found = collect(planned, *settings)
        return [replace(run, used=False, status="failed") if run.planned.seed == 1 else run for run in found]

    monkeypatch.setattr(stages, "collect", without_last_seed)
    assert recommend(opinions(240), "stale=use") == 0
    shown = capsys.readouterr().out
    assert "Take learns: accuracy" in shown and "out: learns:" not in shown


@pytest.mark.long
@pytest.mark.usefixtures("shared_process")
def test_the_budget_is_also_for_starting_and_measuring(recommend, capsys, monkeypatch):
    clock = iter(range(0, 1_000_000, 1000))
    monkeypatch.setattr(stages, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert recommend(opinions(60), "--budget", "3500s") == 0
    shown = capsys.readouterr().out
    assert "1 of 2 seeds" in shown and "2 of 2 seeds" not in shown
    assert re.search(r"starting and measuring them (49 min \d+ s|50 min) here", shown)


@pytest.mark.long
@pytest.mark.usefixtures("shared_process")
def test_a_first_candidate_that_fails_is_left_out_of_a_budget_too(recommend, tmp_path, capsys):
    spec = tmp_path / "conf" / "table" / "few.yaml"
    diverges = "rows:\n  - {label: diverges, overrides: [method=full, trainer.lr=1e30]}"
    spec.write_text(spec.read_text().replace("rows:", diverges))
    assert recommend(opinions(60), "--budget", "1h") == 0
    assert "out: diverges: the loss became nan" in capsys.readouterr().out


@pytest.mark.usefixtures("shared_process")
def test_a_file_may_be_named_in_any_script(recommend, tmp_path, capsys):
    recommend.file = tmp_path / "größe отзывы.csv"
    assert recommend(opinions(60), "--max-share", "0.1") == 0
    assert len(list((tmp_path / "outputs").glob("recommend-größe-отзывы-*/tables/recommend/table.html"))) == 1


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (opinions(49), [], "has 49 rows: no method can be told from another on fewer than 50"),
        (opinions(60, ["yes"]), [], "every label is 'yes'"),
        (
            [f"the film,{max(number, 5) / 7:.3f}" for number in range(60)],
            [],
            "'task.metrics=[pearson,spearman]' compares those",
        ),
        (
            [f"the film,{number / 7:.3f}" for number in range(60)],
            [],
            "Labels that are scores take 'task.metrics=[pearson,spearman]'",
        ),
        (opinions(60), ["--budget", "soon"], "--budget soon must be a time with its unit, such as 30m or 4h"),
        (opinions(60), ["--budget", "0.01s"], "allows not even one run: the shortest takes about"),
        (opinions(60), ["--max-share", "-1"], "--max-share -1 must be percent"),
        (opinions(60), ["--max-memory", "1M"], "no method keeps to memory and weights: learns nothing: "),
        (opinions(60), ["--text", "a", "--text", "b"], "a text is one column, or a pair of two"),
        (opinions(60), ["until=decided"], "until=decided is for `peftbench sweep table=…`"),
        (opinions(60), ["explain_spread=true"], "explain_spread=true is for `peftbench sweep table=…`"),
    ],
)
def test_a_mistake_is_one_clear_line(recommend, capsys, rows, options, message):
    assert recommend(rows, *options) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and len(error.splitlines()) == 1


def test_a_column_that_is_not_there_is_named(recommend, capsys):
    assert recommend(opinions(60), label="Label") == 2
    error = capsys.readouterr().err
    assert "Label" in error and "is it, so?" in error and len(error.splitlines()) == 1
    assert "Name the columns with --text and --label" in error


def test_a_file_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["recommend", str(tmp_path), "--text", "a", "--label", "b"]) == 2
    assert "this is a folder, not a file" in capsys.readouterr().err
    assert main(["recommend", str(tmp_path / "no.csv"), "--text", "a", "--label", "b"]) == 2
    assert "no.csv: no such file" in capsys.readouterr().err
