"""The user's own runs as comparisons: which are compared, and which are left out and said."""

import pytest
from planted import plant
from records import age

from peftbench.advice.records import compare_local_runs, find_local_runs

ADAPTER, LORA = {"name": "adapter", "bottleneck": 8, "layers": "all"}, {"name": "lora", "rank": 8}
GOOD, BAD = (0.85, 0.84), (0.7, 0.71)


@pytest.fixture
def compared(tmp_path):
    """A function that returns the comparison of the only task and model there is."""

    def compared():
        (own,) = find_local_runs(tmp_path)
        return compare_local_runs(own, tmp_path)

    return compared


def labels(comparison):
    return [candidate.label for candidate in comparison.candidates]


def test_settings_are_told_apart_and_named_by_what_differs(tmp_path, compared):
    plant(tmp_path, ADAPTER, GOOD)
    plant(tmp_path, {**ADAPTER, "layers": "6-"}, GOOD)
    plant(tmp_path, {"name": "adapter", "bottleneck": 16}, BAD)
    plant(tmp_path, LORA, BAD)
    assert sorted(labels(compared())) == ["adapter m = 16", "adapter m = 8", "adapter m = 8, layers 6-", "lora r = 8"]


def test_a_method_is_taken_in_the_way_of_most_seeds_then_of_the_highest_score(tmp_path, compared):
    plant(tmp_path, LORA, (0.95,), trainer={"lr": 1e-2})
    plant(tmp_path, LORA, GOOD, trainer={"lr": 1e-3})
    plant(tmp_path, LORA, BAD, trainer={"lr": 1e-4})
    plant(tmp_path, ADAPTER, GOOD)
    found = compared()
    lora = next(one for one in found.candidates if one.label == "lora r = 8")
    assert lora.cells["accuracy"].value == pytest.approx(84.5, abs=0.1) and lora.cells["accuracy"].n == 2
    (remark,) = [note for note in found.notes if "several ways" in note]
    assert remark.endswith("lora r = 8") and "flatters" in remark


def test_runs_cut_short_stand_beside_no_others(tmp_path, compared):
    plant(tmp_path, ADAPTER, (0.95, 0.96), trainer={"max_steps": 30})
    plant(tmp_path, {"name": "bitfit"}, BAD, trainer={"max_steps": 30})
    found = compared()
    assert sorted(labels(found)) == ["adapter m = 8", "bitfit"] and not any("cut short" in note for note in found.notes)
    plant(tmp_path, LORA, GOOD, trainer={"max_steps": None})
    found = compared()
    assert sorted(labels(found)) == ["adapter m = 8", "bitfit", "lora r = 8"]
    assert "runs that trainer.max_steps cut short stand beside others trained to their end" in found.notes
    plant(tmp_path, {"name": "bitfit"}, GOOD)
    found = compared()
    assert sorted(labels(found)) == ["bitfit", "lora r = 8"]
    assert any(note.startswith("4 runs that trainer.max_steps cut short are left out") for note in found.notes)


def test_test_scores_are_taken_where_all_have_them(tmp_path, compared):
    plant(tmp_path, LORA, GOOD, splits=("validation", "test"))
    plant(tmp_path, ADAPTER, GOOD, splits=("validation", "test"))
    assert compared().evaluation == "test"
    plant(tmp_path, {"name": "bitfit"}, GOOD)
    assert compared().evaluation == "validation"


def test_runs_of_other_code_and_damaged_ones_are_left_out_and_said(tmp_path, compared):
    plant(tmp_path, ADAPTER, GOOD)
    plant(tmp_path, LORA, GOOD)
    for record in plant(tmp_path, {"name": "bitfit"}, GOOD):
        age(record)
    damaged = plant(tmp_path, {"name": "ia3"}, GOOD)[0]
    damaged.predictions_path.write_text("split,id\n")
    found = compared()
    assert sorted(labels(found)) == ["adapter m = 8", "ia3", "lora r = 8"]
    assert any(note.startswith("2 runs of other code are left out") for note in found.notes)
    assert any(note.startswith("ia3, seed 0: ") and "is damaged" in note for note in found.notes)


def test_a_record_with_the_config_of_another_run_is_left_out_and_said(tmp_path, compared):
    plant(tmp_path, ADAPTER, GOOD)
    plant(tmp_path, LORA, GOOD)
    plant(tmp_path, {"name": "ia3"}, GOOD)[1].update(method="bitfit")
    found = compared()
    assert next(one for one in found.candidates if one.label == "ia3").cells["accuracy"].n == 1
    assert any(note.startswith("damaged and left out: ") and "ia3-mrpc" in note for note in found.notes)


def test_other_tasks_models_and_data_are_other_comparisons(tmp_path):
    plant(tmp_path, LORA, GOOD)
    plant(tmp_path, LORA, GOOD, task="cola", training_rows=8551)
    found = {own.task: own for own in find_local_runs(tmp_path)}
    assert found["mrpc"].task_type == "pair" and found["mrpc"].training_rows == 3668
    assert found["cola"].task_type == "classification" and found["cola"].training_rows == 8551
    assert compare_local_runs(found["mrpc"], tmp_path) is None


def test_records_without_a_config_or_a_folder_are_no_evidence(tmp_path):
    assert find_local_runs(tmp_path / "none") == []
    for record in plant(tmp_path, LORA, GOOD):
        record.config_path.write_text("method: [")
    assert find_local_runs(tmp_path) == []


def test_one_seed_each_compares_nothing(tmp_path, compared):
    plant(tmp_path, LORA, GOOD[:1])
    plant(tmp_path, ADAPTER, BAD[:1])
    (pair,) = compared().pairs
    assert (pair.low, pair.high) == (None, None)


def test_what_trains_a_candidate_leaves_out_where_things_lie(tmp_path, compared):
    plant(tmp_path, LORA, GOOD)
    plant(tmp_path, ADAPTER, GOOD)
    lora = next(one for one in compared().candidates if one.label == "lora r = 8")
    assert lora.overrides == ["method=lora", "method.rank=8", "task=mrpc"]
