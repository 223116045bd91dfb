"""Rows that name the runs of prepared rows: `run(LABEL)`, each with those of its own seed."""

import json

import pytest
import yaml
from safetensors.torch import load_file, save_file

from peftbench.errors import UserError
from peftbench.runs.find import find_runs
from peftbench.sweeps.request import read_request

pytestmark = pytest.mark.usefixtures("shared_process")
PFEIFFER = ["method=pfeiffer", "method.bottleneck=2"]


@pytest.fixture
def fusion_sweep(sweep):
    spec = yaml.safe_load(sweep.spec.read_text())
    spec |= {
        "baseline": "single",
        "columns": ["share", "accuracy", "difference"],
        "claims": [],
        "rows": [
            {"label": "single", "overrides": PFEIFFER},
            {
                "label": "fused",
                "overrides": [
                    "method=fusion",
                    "method.adapters={own: run(its own), text_file: run(other), third: run(third)}",
                    'method.leave_out=["\\${task.name}"]',
                ],
            },
        ],
        "prepare": [
            {"label": "its own", "overrides": PFEIFFER},
            {"label": "other", "overrides": [*PFEIFFER, "trainer.epochs=1", "trainer.lr=0.1"]},
            {"label": "third", "overrides": [*PFEIFFER, "trainer.epochs=1"]},
        ],
    }
    sweep.spec.write_text(yaml.safe_dump(spec))
    return sweep


def fusions(sweep):
    return {run.result.seed: run for run in find_runs(sweep.outputs, method="fusion")}


@pytest.mark.long
def test_each_fusion_is_of_the_prepared_runs_of_its_seed_and_stale_once_one_was_trained_again(
    fusion_sweep, capsys, monkeypatch
):
    assert fusion_sweep() == 0
    made = fusions(fusion_sweep)
    assert set(made) == {0, 1}
    for seed, run in made.items():
        parts = run.result.origin.parts
        assert set(parts) == {"own", "third"}, "the target task's name is left out"
        assert all(f"-s{seed}-" in part.run for part in parts.values())
        assert run.result.evaluation().observed["adapters"] == ["own", "third"]

    own = next(
        run.record for run in find_runs(fusion_sweep.outputs) if run.id == made[1].result.origin.parts["own"].run
    )
    path = own.adapter_dir / "adapter.safetensors"
    save_file({name: 1.01 * tensor for name, tensor in load_file(path).items()}, path)
    own.finish()  # as another training would have left it
    capsys.readouterr()
    assert fusion_sweep(command="table") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"trained again: own: {made[1].id};" in shown and made[0].id not in shown
    monkeypatch.chdir(fusion_sweep.outputs.parent)
    assert fusion_sweep("stale=rerun") == 0
    table = json.loads((fusion_sweep.outputs / "tiny" / "tables" / "tiny" / "table.json").read_text())
    for run in table["rows"][1]["runs"]:
        adapters = run["config"]["method"]["adapters"].values()
        assert adapters and all(path.startswith("outputs/tiny/pfeiffer-") for path in adapters), "shown elsewhere, too"
    assert (
        fusions(fusion_sweep)[1].result.origin.parts["own"].adapter == own.read().files["adapter/adapter.safetensors"]
    )


def test_a_label_that_is_not_prepared_is_said(fusion_sweep):
    fusion_sweep.spec.write_text(fusion_sweep.spec.read_text().replace("run(third)", "run(thrid)"))
    with pytest.raises(UserError, match=r"row 'fused': .*no row is prepared as 'thrid'. Did you mean third"):
        read_request(fusion_sweep.line()[1:])


def test_an_adapter_left_out_that_there_is_none_of_is_said_before_anything_is_trained(fusion_sweep):
    fusion_sweep.spec.write_text(fusion_sweep.spec.read_text().replace("text_file: run", "others: run"))
    with pytest.raises(UserError, match=r"row 'fused': .*no adapter 'text_file'"):
        read_request(fusion_sweep.line()[1:])


def test_a_fusion_is_planned_before_its_parts_are_there(fusion_sweep):
    request = read_request(fusion_sweep.line()[1:])
    of_seed_1 = next(run for run in request.planned if (run.label, run.seed) == ("fused", 1))
    ids = {run.label: run.folder.name for run in request.planned if run.seed == 1}
    assert of_seed_1.config["method"]["runs"] == {"own": ids["its own"], "third": ids["third"]}
    assert f"own: {fusion_sweep.outputs}" in of_seed_1.command, "a line that can be typed"


@pytest.mark.long
def test_a_row_of_a_pruned_fusion_is_scored_and_measured_without_training(fusion_sweep, capsys):
    spec = yaml.safe_load(fusion_sweep.spec.read_text())
    fused = spec["rows"][1]
    spec["columns"] = ["accuracy", "latency"]
    spec["rows"].append({**fused, "label": "pruned", "evaluation": {"kept_adapters": 1}})
    fusion_sweep.spec.write_text(yaml.safe_dump(spec))
    assert fusion_sweep("seeds=1") == 0
    assert "on validation, 1 adapters kept" in capsys.readouterr().out
    (run,) = fusions(fusion_sweep).values()
    shown = run.result.evaluation(kept_adapters=1)
    assert all(sorted(weights) == [0, 1] for weights in shown.observed["weights"]) and shown.latency
    table = json.loads((fusion_sweep.outputs / "tiny" / "tables" / "tiny" / "table.json").read_text())
    whole, pruned = (row["cells"]["latency"]["value"] for row in table["rows"][1:])
    assert pruned == shown.latency["settings"][0]["ratio"] != whole
    with pytest.raises(UserError, match="row 'pruned': evaluation: kept_adapters stands alone"):
        read_request(fusion_sweep.line("evaluation.dropped_layers=1")[1:])
    spec["rows"][0]["evaluation"] = {"kept_adapters": 1}
    fusion_sweep.spec.write_text(yaml.safe_dump(spec))
    with pytest.raises(UserError, match="row 'single': evaluation.kept_adapters, but pfeiffer is no fusion"):
        read_request(fusion_sweep.line()[1:])
