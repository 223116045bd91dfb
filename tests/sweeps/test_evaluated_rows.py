"""`peftbench sweep` scores what rows show of runs that have trained: with layers dropped, merged."""

import json

import pytest

from peftbench.commands import sweep as command
from peftbench.runs import prepare
from peftbench.runs.record import Record

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("shared_process")]

ROWS = """
baseline: n = 0
columns: [accuracy, kept, latency]
rows:
  - {label: n = 0, overrides: [method=pfeiffer, method.bottleneck=2, method.drop=robust]}
  - label: n = 1
    overrides: [method=pfeiffer, method.bottleneck=2, method.drop=robust]
    evaluation: {dropped_layers: 1}
  - {label: merged, overrides: [method=lora, method.rank=2], evaluation: {merged: true}}
"""


def with_rows(spec, rows: str) -> None:
    kept = spec.read_text().split("baseline:")[0]
    spec.write_text(kept + rows.strip() + "\n")


def test_rows_of_one_run_are_scored_and_measured_behind_training(sweep, capsys, monkeypatch):
    with_rows(sweep.spec, ROWS)
    assert sweep("seeds=1") == 0
    out = capsys.readouterr().out
    assert "2 to train" in out and "0 of 2 runs are there" in out
    table = json.loads((sweep.outputs / "tiny" / "tables" / "tiny" / "table.json").read_text())
    cells = [row["cells"] for row in table["rows"]]
    assert all(cell["accuracy"]["value"] is not None and cell["latency"]["value"] for cell in cells)
    assert cells[0]["latency"]["value"] != cells[1]["latency"]["value"]
    robust = Record(sweep.outputs / "tiny" / table["rows"][0]["runs"][0]["id"]).read()
    shown = robust.evaluation("validation", dropped_layers=1)
    assert cells[1]["accuracy"]["value"] == 100 * shown.metrics["accuracy"]
    assert cells[1]["latency"]["value"] == shown.latency["settings"][0]["ratio"]
    _, backbone = prepare._kept["backbone"]
    hooked = [module for module in backbone.encoder.modules() if module._forward_hooks or module._forward_pre_hooks]
    assert not hooked, "the next run takes the backbone over as it was"
    monkeypatch.setattr(command, "measure_rows", lambda request: 0)
    assert sweep("seeds=1") == 0 and "scoring" not in capsys.readouterr().out, "nothing is left to do"


def test_more_layers_than_there_are_cost_their_row_alone(sweep, capsys):
    with_rows(sweep.spec, ROWS.replace("dropped_layers: 1", "dropped_layers: 7"))
    assert sweep("seeds=1", "measure.latency=false") == 2
    shown = capsys.readouterr()
    assert shown.err.count("--drop 7 leaves no layer") == 1
    table = json.loads((sweep.outputs / "tiny" / "tables" / "tiny" / "table.json").read_text())
    assert [row["cells"].get("accuracy") is None for row in table["rows"]] == [False, True, False]
