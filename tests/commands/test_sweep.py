"""`peftbench sweep` and `peftbench table` as a user types them, on the tiny model."""

import json
import re
import shutil
import signal
import time
from pathlib import Path
from subprocess import DEVNULL

import forked
import pytest
import torch
from records import age

from peftbench.cli import main
from peftbench.config.compose import compose
from peftbench.config.groups import read_group
from peftbench.config.schema import resolve
from peftbench.runs.execute import execute_run
from peftbench.runs.find import find_runs
from peftbench.runs.record import Record
from peftbench.runs.result import SECTIONS
from peftbench.sweeps.request import read_request

pytestmark = pytest.mark.long
in_this_process = pytest.mark.usefixtures("shared_process")
UNMEASURED = [f"measure.{section}=false" for section in SECTIONS]


def results(outputs: Path) -> dict[str, dict]:
    return {run.id: run.facts for run in find_runs(outputs)}


def learned(outputs: Path) -> dict[str, tuple]:
    """What must not depend on how a sweep went: metrics, curve and predictions of every run."""
    return {
        run.id: (
            run.result.metrics,
            [(row["step"], row["loss"]) for row in run.record.history()],
            run.record.predictions_path.read_text(),
        )
        for run in find_runs(outputs, status="finished")
    }


def test_a_sweep_trains_what_is_missing_and_shows_the_table(sweep, capsys):
    assert sweep() == 0
    shown = capsys.readouterr().out
    assert "0 of 6 runs are there, 6 to train" in shown and "run 1 of 6  " in shown
    assert re.search(r"run 6 of 6, about \d+ s left  ", shown), "how long the rest takes, from the runs before"
    assert "adapters beat LoRA" in shown and "88 (somebody)" in shown
    found = results(sweep.outputs)
    assert len(found) == 6 and {result["status"] for result in found.values()} == {"finished"}
    measured = [result for result in found.values() if result["latency"]]
    assert {(result["method"], result["seed"]) for result in measured} == {("head", 0), ("lora", 0), ("adapter", 0)}
    assert all(result["training_step"]["ratio"] > 0 and result["switching"]["bytes"] > 0 for result in measured)
    folder = sweep.outputs / "tiny" / "tables" / "tiny"
    assert {path.suffix for path in folder.iterdir()} >= {".md", ".csv", ".json", ".tex", ".html", ".png", ".svg"}
    table = json.loads((folder / "table.json").read_text())
    assert [row["label"] for row in table["rows"]] == ["head", "LoRA", "adapter"]
    accuracy = [result["metrics"]["validation"]["accuracy"] for result in found.values() if result["method"] == "lora"]
    assert table["rows"][1]["cells"]["accuracy"]["value"] == pytest.approx(100 * sum(accuracy) / 2)
    assert table["examples"] == 21

    before = {run.id: run.record.result_path.stat().st_mtime_ns for run in find_runs(sweep.outputs)}
    assert sweep() == 0
    assert "to train" not in capsys.readouterr().out
    assert before == {run.id: run.record.result_path.stat().st_mtime_ns for run in find_runs(sweep.outputs)}
    assert sweep("seeds=3") == 0
    assert "6 of 9 runs are there, 3 to train" in capsys.readouterr().out


@in_this_process
def test_the_table_command_trains_nothing_and_names_what_is_missing(sweep, capsys):
    assert sweep(command="table") == 0
    shown = capsys.readouterr().out
    assert "6 of 6 runs are missing" in shown and "peftbench sweep table=tiny" in shown
    assert not sweep.outputs.exists()
    sweep("seeds=1", *UNMEASURED)
    capsys.readouterr()
    assert sweep("--format", "csv", command="table") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("row,column,unit,value") and any(line.startswith("LoRA,share,%,") for line in lines)


@in_this_process
def test_a_failed_row_is_shown_with_its_reason_while_the_others_finish(sweep, capsys):
    text = sweep.spec.read_text().replace("method.rank=2", "method.rank=2, trainer.lr=1e30, trainer.clip=null")
    sweep.spec.write_text(text)
    assert sweep("seeds=1") == 1
    captured = capsys.readouterr()
    assert "failed: LoRA, seed 0: the loss became" in captured.out
    statuses = {result["method"]: result["status"] for result in results(sweep.outputs).values()}
    assert statuses == {"head": "finished", "lora": "failed", "adapter": "finished"}
    assert main(["runs", "--status", "failed", "--output-dir", str(sweep.outputs)]) == 0
    assert "lora-" in capsys.readouterr().out


@in_this_process
def test_on_error_stop_starts_nothing_further(sweep):
    text = sweep.spec.read_text().replace("method.rank=2", "method.rank=2, trainer.lr=1e30, trainer.clip=null")
    sweep.spec.write_text(text)
    assert sweep("seeds=1", "on_error=stop", *UNMEASURED) == 1
    assert {result["method"] for result in results(sweep.outputs).values()} == {"head", "lora"}


@pytest.mark.long
@in_this_process
def test_a_mistake_that_shows_in_a_run_is_said_in_the_table(sweep, capsys):
    sweep.spec.write_text(sweep.spec.read_text().replace("method.rank=2", "method.rank=99"))
    assert sweep("seeds=2") == 2
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 of 6 runs are missing" in shown and shown.count("LoRA: method.rank=99") == 1
    assert {result["method"] for result in results(sweep.outputs).values()} == {"head", "adapter"}


@pytest.mark.long
@in_this_process
def test_on_error_stop_starts_nothing_behind_a_mistake(sweep):
    sweep.spec.write_text(sweep.spec.read_text().replace("method.rank=2", "method.rank=99"))
    assert sweep("seeds=1", "on_error=stop", *UNMEASURED) == 2
    assert {result["method"] for result in results(sweep.outputs).values()} == {"head"}


@pytest.mark.long
@in_this_process
def test_a_failure_beside_a_mistake_is_a_failure(sweep):
    text = sweep.spec.read_text().replace("method.rank=2", "method.rank=99")
    sweep.spec.write_text(text.replace("bottleneck=2", "bottleneck=2, trainer.lr=1e30, trainer.clip=null"))
    assert sweep("seeds=1", *UNMEASURED) == 1


@pytest.mark.long
@in_this_process
def test_runs_of_other_code_are_named_and_left_out(sweep, capsys):
    sweep("seeds=1", *UNMEASURED)
    (lora,) = find_runs(sweep.outputs, method="lora")
    age(lora.record)
    capsys.readouterr()
    assert sweep("seeds=1", *UNMEASURED) == 0
    shown = capsys.readouterr().out
    assert "stale and left out, made by other code" in shown and lora.id in shown and "stale=rerun" in shown
    assert lora.record.read().origin.code == "0ld"
    table = json.loads((sweep.outputs / "tiny" / "tables" / "tiny" / "table.json").read_text())
    assert (
        "value" not in table["rows"][1]["cells"].get("accuracy", {}) or not table["rows"][1]["cells"]["accuracy"]["n"]
    )
    assert sweep("seeds=1", "stale=use", *UNMEASURED) == 0
    assert "figures of LoRA are from runs of other code" in capsys.readouterr().out
    assert sweep("seeds=1", "stale=rerun", *UNMEASURED) == 0
    assert lora.record.read().origin.code != "0ld"


@pytest.mark.long
@in_this_process
def test_runs_of_data_that_have_changed_are_made_again(sweep, tiny_data_dir, tmp_path, capsys):
    data = tmp_path / "validation.csv"
    shutil.copy(tiny_data_dir / "opinions" / "validation.csv", data)
    spec = sweep.spec.read_text()
    sweep.spec.write_text(spec.replace(str(tiny_data_dir / "opinions" / "validation.csv"), str(data)))
    assert sweep("seeds=[0,1]", *UNMEASURED) == 0
    old = {run.id for run in find_runs(sweep.outputs)}
    data.write_text("\n".join(data.read_text().splitlines()[:-2]) + "\n")
    assert sweep("seeds=[0,1,2]", *UNMEASURED) == 0
    assert "made from other data than the other runs" in capsys.readouterr().out
    new = {run.id: run.result.finished for run in find_runs(sweep.outputs) if run.id not in old}
    assert sweep("seeds=[0,1,2]", "stale=rerun", *UNMEASURED) == 0
    assert "made from other data" not in capsys.readouterr().out
    runs = find_runs(sweep.outputs)
    assert len({run.result.origin.data for run in runs}) == 1
    assert {run.id: run.result.finished for run in runs if run.id in new} == new, "those of today's data stay"


@pytest.mark.long
@in_this_process
def test_a_changed_default_is_named(sweep, capsys):
    sweep("seeds=1", *UNMEASURED)
    (lora,) = find_runs(sweep.outputs, method="lora")
    # as if conf/method/lora.yaml had said alpha 4 when this run was made
    shutil.rmtree(lora.record.folder)
    execute_run(resolve(compose([*lora.result.overrides, "method.alpha=4"])), lora.result.overrides)
    capsys.readouterr()
    sweep("seeds=1", *UNMEASURED, command="table")
    shown = " ".join(capsys.readouterr().out.split())
    assert "was made with other defaults: method.alpha was 4.0, is 16.0" in shown


@pytest.mark.parametrize("table", [table["name"] for table in read_group("table")])
def test_every_preset_composes_and_each_of_its_rows_is_another_run_or_another_evaluation(table):
    request = read_request([f"table={table}"])
    labels = [row.label for row in request.spec.rows]
    shown = [run for run in request.planned if run.label in labels]
    assert len({(run.folder, run.evaluation) for run in shown}) == len(labels) * len(request.spec.seeds)


def start(sweep, *argv):
    return forked.Popen(["-m", "peftbench", *sweep.line(*argv)], stdout=DEVNULL, stderr=DEVNULL)


def kill_when(reached, process):
    """Kill the sweep as soon as `reached()` is true."""
    try:
        give_up = time.time() + 60
        while time.time() < give_up and process.poll() is None and not reached():
            time.sleep(0.005)
        assert process.poll() is None, "the sweep ended before it could be killed"
    finally:
        process.kill()
        process.wait()


@pytest.mark.long
def test_a_killed_sweep_goes_on_and_ends_as_an_undisturbed_one(sweep, tmp_path):
    undisturbed = tmp_path / "undisturbed"
    line = [*UNMEASURED, "trainer.epochs=6", "seeds=1"]
    assert sweep(f"output_dir={undisturbed}", *line) == 0

    def finished():
        return len(find_runs(sweep.outputs, status="finished"))

    # one run is there, another between two epochs
    kill_when(lambda: finished() and list(sweep.outputs.glob("tiny/*/checkpoint.pt")), start(sweep, *line))
    assert finished() < 3
    assert sweep(*line) == 0
    assert learned(sweep.outputs) == learned(undisturbed)


@pytest.mark.long
def test_an_interrupted_sweep_says_so_and_shows_what_there_is(sweep):
    process = start(sweep, "trainer.epochs=50")
    give_up = time.time() + 60
    while time.time() < give_up and not list(sweep.outputs.glob("tiny/*/checkpoint.pt")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert find_runs(sweep.outputs, status="interrupted")
    assert (sweep.outputs / "tiny" / "tables" / "tiny" / "table.html").exists()


@pytest.mark.long
@in_this_process
def test_a_setting_turned_off_is_not_measured(sweep):
    assert sweep("seeds=1", "measure.latency=no", "++measure.switching=0") == 0
    for run in find_runs(sweep.outputs):
        assert not run.result.latency and not run.result.switching
        assert run.result.training_step.result["ratio"] > 0


@pytest.mark.long
def test_out_of_memory_while_measuring_leaves_the_rest(sweep, capsys, monkeypatch):
    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("peftbench.measuring.run.measure_training_step", too_large)
    assert sweep("seeds=1") == 1
    captured = capsys.readouterr()
    assert captured.err.count("training step could not be measured: out of memory") == 3
    assert "adapters beat LoRA" in captured.out and "Traceback" not in captured.err
    for run in find_runs(sweep.outputs):
        assert run.status == "finished" and run.result.latency and run.result.training_step.error == "out of memory"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["seeds=0"], "seeds=0 must be a number of seeds"),
        (["on_error=ignore"], "on_error=ignore is unknown: choose from continue, stop"),
        (["stale=keep"], "stale=keep is unknown"),
        (["method.rnk=3"], "row 'head': method.rnk=3"),
        (["method=lora"], "method=lora: every row of table tiny sets method itself, so this changes nothing"),
        (["hydra/launcher=slrm"], "hydra/launcher=slrm: there is no such hydra/launcher. Did you mean slurm?"),
        (["seed=7"], "say seeds=3, or seeds=[0,1,2], instead of seed="),
        (["force=true"], "stale=rerun trains runs of other code again"),
    ],
)
def test_mistakes_in_the_line(sweep, capsys, argv, says):
    assert sweep(*argv) == 2
    assert says in capsys.readouterr().err
    assert not sweep.outputs.exists()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("baseline: head", "baseline: hed", "the baseline is no row. Did you mean head?"),
        ("columns: [share,", "columns: [shar,", "there is no column 'shar'. Did you mean share or"),
        ("label: adapter", "label: LoRA", "two rows are labelled 'LoRA'"),
        ("title: Tiny", "titel: Tiny", "has no key 'titel'. Did you mean title?"),
        ("ascending: [LoRA, adapter]", "ascending: [LoRA, adaptr]", "is about no row. Did you mean adapter?"),
    ],
)
def test_mistakes_in_a_table(sweep, capsys, old, new, says):
    sweep.spec.write_text(sweep.spec.read_text().replace(old, new))
    assert sweep() == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("launcher", "setting", "says"),
    [
        ("joblib", "n_jobs=0", "hydra/launcher=joblib cannot use its settings"),
        ("joblib", "n_jobs=two", "n_jobs"),
        ("slurm", "cpus_per_task=x", "cpus_per_task"),
    ],
)
def test_settings_that_a_launcher_cannot_use(sweep, capsys, tmp_path, monkeypatch, launcher, setting, says):
    pytest.importorskip({"joblib": "joblib", "slurm": "submitit"}[launcher])
    for client in ("srun", "sbatch"):  # submitit looks for them before it looks at any setting
        (tmp_path / client).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / client).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert sweep(f"hydra/launcher={launcher}", f"hydra.launcher.{setting}") == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not find_runs(sweep.outputs)


def test_a_table_that_is_no_yaml(sweep, capsys):
    sweep.spec.write_text("title: Tiny\nrows: [\n")
    assert sweep() == 2
    error = capsys.readouterr().err
    assert "tiny.yaml, line 3: " in error and error.count("\n") == 1


def test_an_unknown_table_and_none(sweep, capsys):
    assert main(["sweep", "table=lab/bottlneck"]) == 2
    assert "table=lab/bottlneck: there is no such table. Did you mean lab/bottleneck" in capsys.readouterr().err
    assert main(["sweep", "model=minilm"]) == 2
    assert "say which table" in capsys.readouterr().err


def test_what_cannot_be_had_is_said_once_before_any_run(sweep, capsys):
    assert sweep("model.path=/no/such/model") == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "/no/such/model" in captured.err
    assert "to train" not in captured.out and not find_runs(sweep.outputs)


@pytest.mark.long
@in_this_process
def test_a_damaged_predictions_file_costs_its_own_row_alone(sweep, capsys):
    sweep("seeds=1", *UNMEASURED)
    (lora,) = find_runs(sweep.outputs, method="lora")
    Record(lora.record.folder).predictions_path.write_text("split,index\nvalidation,0,1\n")
    capsys.readouterr()
    assert sweep("seeds=1", command="table") == 0
    shown = capsys.readouterr().out
    assert "unreadable: LoRA, seed 0: " in shown and "predictions.csv is damaged" in shown
    assert "1 unreadable" in shown and "Highest accuracy: " in shown
