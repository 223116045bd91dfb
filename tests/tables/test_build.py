"""From records to the table's figures: means, intervals, verdicts, what is left out and why."""

from dataclasses import replace

import numpy as np
import pytest
from records import finished_fields

from peftbench.runs.identity import run_id
from peftbench.runs.predictions import Predictions
from peftbench.runs.record import Record
from peftbench.runs.result import Status
from peftbench.tables.build import build_table
from peftbench.tables.collect import PlannedRun, collect
from peftbench.tables.spec import read_spec
from peftbench.tasks.metrics import score

EXAMPLES = 300
RAW = {
    "title": "Made",
    "base": ["model=minilm", "task=mrpc"],
    "seeds": 2,
    "baseline": "full",
    "columns": ["share", "accuracy", "difference", "kept", "speed", "latency_merged"],
    "tolerance": {"share": 0.01, "accuracy": 3.0, "kept": 1.0, "latency_merged": 0.02},
    "rows": [
        {"label": "full", "overrides": ["method=full"]},
        {"label": "LoRA", "overrides": ["method=lora"], "lab": {"share": 0.37, "accuracy": 80, "kept": 99}},
        {"label": "bad", "overrides": ["method=bitfit"], "lab": {"accuracy": 80, "kept": 99}},
    ],
    "claims": [
        {"text": "LoRA beats BitFit", "column": "accuracy", "ascending": ["bad", "LoRA"]},
        {"text": "BitFit beats LoRA", "column": "accuracy", "ascending": ["LoRA", "bad"]},
        {"text": "LoRA beats full", "column": "accuracy", "ascending": ["full", "LoRA"]},
        {"text": "LoRA is free", "column": "latency_merged", "row": "LoRA", "between": [0.98, 1.02]},
        {"text": "LoRA against full", "column": "latency", "row": "LoRA", "over": "full", "between": [1.2, 1.3]},
        {"text": "nobody knows", "column": "switch", "row": "LoRA", "between": [0, 1]},
    ],
}


def predictions(accuracy: float, seed: int) -> Predictions:
    """`accuracy` of the examples right, the others wrong, mostly the same ones for every seed."""
    labels = (np.arange(EXAMPLES) % 3 > 0).astype(int)
    wrong = np.random.default_rng(0).permutation(EXAMPLES)[: round((1 - accuracy) * EXAMPLES) + seed]
    said = labels.copy()
    said[wrong] = 1 - said[wrong]
    return Predictions(labels, said, np.eye(2)[said])


def latency(ratio: float, merged: float | None) -> dict:
    def setting(batch: int, ratio: float) -> dict:
        both = {"ratio": ratio, "ratio_low": ratio - 0.005, "ratio_high": ratio + 0.005}
        if merged is None:
            return {"batch": batch, "length": 128, **both}
        more = {"merged_ratio": merged, "merged_ratio_low": merged - 0.01, "merged_ratio_high": merged + 0.01}
        return {"batch": batch, "length": 128, **both, **more}

    return {"settings": [setting(1, ratio), setting(32, 1 + (ratio - 1) / 2)]}


@pytest.fixture
def make(tmp_path):
    """A function that writes a finished run and returns what a row wants of it."""

    def make(label, method, seed, accuracy, share=0.01, **fields):
        config = {
            "method": {"name": method},
            "task": {"name": "mrpc", "metrics": ["accuracy", "f1"]},
            "model": {"name": "minilm"},
            "trainer": {},
            "seed": seed,
            "experiment": "lab",
        }
        planned = PlannedRun(label, seed, [f"method={method}", f"seed={seed}"], config, tmp_path / run_id(config))
        if accuracy is None:
            return planned
        told = predictions(accuracy, seed)
        right = float(np.mean(told.labels == told.predictions))
        record = Record.create(planned.folder, config, planned.overrides)
        record.write_predictions({"validation": told}, ["no", "yes"])
        metrics = {"accuracy": right, "f1": 0.9, "loss": 0.5}
        sizes = {"train": 320, "validation": EXAMPLES}
        fields = {"train": 50.0 + seed, **fields}
        record.finish(**finished_fields({"validation": metrics}, sizes, share=share, **fields))
        return planned

    return make


@pytest.fixture
def table(make):
    planned = [make("full", "full", seed, 0.85, share=1.0, latency=latency(1.0, None)) for seed in (0, 1)]
    planned += [make("LoRA", "lora", seed, 0.84, share=0.0037, latency=latency(1.25, 1.0)) for seed in (0, 1)]
    planned += [make("bad", "bitfit", seed, 0.6) for seed in (0, 1)]
    return build_table(read_spec("made", RAW, 2), collect(planned), "peftbench sweep table=made")


@pytest.fixture
def scores_of_a_regression(make):
    """A function that builds a table of two rows on a task whose scores are correlations."""

    def build(*losses):
        planned = []
        for label, method, noise in (("full", "full", 0.3), ("LoRA", "lora", 0.6)):
            for seed in (0, 1):
                one = make(label, method, seed, 0.85)
                one.config["task"].update(name="stsb", metrics=["pearson"])
                generator = np.random.default_rng(seed)
                labels = np.linspace(0, 5, EXAMPLES)
                said = labels + generator.normal(0, 5 * noise, EXAMPLES)
                record = Record(one.folder)
                record.write_predictions({"validation": Predictions(labels, said, None)})
                pearson = float(np.corrcoef(labels, said)[0, 1])
                score = None if (method, seed) in losses else pearson
                record.finish(**finished_fields({"validation": {"pearson": score}}, {"validation": EXAMPLES}))
                planned.append(one)
        rows = {"rows": RAW["rows"][:2], "claims": RAW["claims"][2:3]}
        raw = {**RAW, **rows, "columns": ["share", "accuracy", "f1", "difference", "spread"]}
        return build_table(read_spec("made", raw, 2), collect(planned), "x")

    return build


@pytest.fixture
def scores_of_three_classes(make):
    """A table on a task of three classes with F1 and the area under the ROC curve."""
    planned = []
    for label, method in (("full", "full"), ("LoRA", "lora")):
        for seed in (0, 1):
            one = make(label, method, seed, 0.85)
            one.config["task"].update(name="nli", metrics=["f1", "roc_auc"])
            generator = np.random.default_rng(seed)
            labels = np.arange(EXAMPLES) % 3
            probabilities = generator.dirichlet(np.ones(3), EXAMPLES) + np.eye(3)[labels] * 0.3
            said = Predictions(labels, probabilities.argmax(1), probabilities / 1.3)
            record = Record(one.folder)
            record.write_predictions({"validation": said}, ["a", "b", "c"])
            metrics = score(["f1", "roc_auc"], said.predictions, labels, 3, said.probabilities)
            record.finish(**finished_fields({"validation": metrics}, {"validation": EXAMPLES}))
            planned.append(one)
    raw = {**RAW, "rows": RAW["rows"][:2], "claims": [], "columns": ["f1", "roc_auc"]}
    return build_table(read_spec("made", raw, 2), collect(planned), "x")


def test_f1_of_three_classes_is_called_macro_and_areas_have_intervals(scores_of_three_classes):
    assert [column.title for column in scores_of_three_classes.columns] == ["F1 (macro)", "ROC AUC", "P(best)"]
    area = cell(scores_of_three_classes, "full", "roc_auc")
    assert 0 < area.low < area.value < area.high <= 1


def cell(table, label, key):
    (row,) = [row for row in table.rows if row.label == label]
    return row.cells[key]


def test_means_and_deviations_over_the_seeds(table):
    accuracy = cell(table, "full", "accuracy")
    assert accuracy.value == pytest.approx((85 + 100 * (255 - 1) / 300) / 2)
    assert accuracy.sd == pytest.approx(np.std([85, 100 * 254 / 300], ddof=1))
    assert accuracy.n == 2 and table.examples == EXAMPLES
    assert cell(table, "full", "train_time").value == 50.5
    assert cell(table, "full", "share").value == 100 and cell(table, "full", "share").sd is None
    assert cell(table, "full", "memory").value == 1024
    assert cell(table, "full", "spread").value == pytest.approx(accuracy.sd)


def test_only_a_real_difference_counts_as_one(table):
    assert cell(table, "bad", "accuracy").differs is True
    assert cell(table, "bad", "difference").high < -15
    assert cell(table, "LoRA", "difference").differs is False  # 3 examples of 300
    assert cell(table, "full", "accuracy").differs is None
    kept = cell(table, "LoRA", "kept")
    assert kept.low < kept.value < 100 < kept.high and kept.value == pytest.approx(98.8, abs=0.2)


def test_one_seed_tells_no_difference(make):
    planned = [make("full", "full", 0, 0.85), make("LoRA", "lora", 0, 0.84), make("bad", "bitfit", 0, 0.6)]
    table = build_table(read_spec("made", RAW, 1), collect(planned), "x")
    difference = cell(table, "bad", "difference")
    assert difference.value == pytest.approx(-25) and difference.n == 1
    assert difference.low is None and difference.differs is None and cell(table, "bad", "accuracy").differs is None
    verdicts = {claim.text: claim.verdict for claim in table.claims}
    assert verdicts["LoRA beats BitFit"] == "cannot be told" and cell(table, "bad", "kept").verdict == "cannot be told"


def test_a_difference_is_that_of_the_scores_shown_whatever_seeds_they_are_of(make):
    planned = [make("full", "full", seed, accuracy) for seed, accuracy in ((0, 0.85), (1, 0.85), (2, 0.88))]
    planned += [make("LoRA", "lora", seed, accuracy) for seed, accuracy in ((0, 0.80), (1, 0.80), (2, None))]
    table = build_table(read_spec("made", RAW, 3), collect(planned), "x")
    difference, shown = cell(table, "LoRA", "difference"), [cell(table, row, "accuracy") for row in ("LoRA", "full")]
    assert difference.value == pytest.approx(shown[0].value - shown[1].value) and difference.n == 2


def test_intervals_hold_for_all_comparisons_of_the_table_together(make):
    accuracies = (("full", "full", 0.85), ("LoRA", "lora", 0.82), ("bad", "bitfit", 0.6))
    planned = [make(label, method, seed, accuracy) for label, method, accuracy in accuracies for seed in (0, 1)]
    few = build_table(read_spec("few", {**RAW, "claims": []}, 2), collect(planned), "x")
    many = build_table(read_spec("many", RAW, 2), collect(planned), "x")
    assert "95 % for all 4 comparisons together" in few.reading[1]  # accuracy and F1 of two rows
    assert "95 % for all 5 comparisons together" in many.reading[1]  # and the claims' one besides
    narrow, wide = (cell(table, "LoRA", "difference") for table in (few, many))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_between_looks_the_table_is_that_of_the_last_look(make):
    """After 3, 5 and 8 seeds; a claim and F1 that were judged at every view would err more often than stated."""
    accuracies = (("full", "full", 0.85, 0.0), ("LoRA", "lora", 0.82, 0.02), ("bad", "bitfit", 0.6, 0.0))
    spec = replace(read_spec("made", RAW, 8), most_seeds=8)

    def seen(seeds):
        runs = [
            make(row, method, seed, mean + spread * (seed % 3 - 1) if seed < seeds else None)
            for row, method, mean, spread in accuracies
            for seed in range(8)
        ]
        table = build_table(spec, collect(runs), "x")
        return table.seeds, table.claims, [(row.cells, row.group) for row in table.rows], table.reading

    at_look, between, at_next = seen(3), seen(4), seen(5)
    assert at_look == between and at_look[0] == [0, 1, 2] and at_look[2][0][0]["f1"].n == 3
    assert at_next[0] == [0, 1, 2, 3, 4] and at_next[2][0][0]["f1"].n == 5 and at_next[2][2][0]["f1"].n == 3


def test_differences_of_correlations_are_in_points_too(scores_of_a_regression):
    table = scores_of_a_regression()
    values = [cell(table, label, "pearson").value for label in ("full", "LoRA")]
    assert 0 < values[1] < values[0] < 1
    assert cell(table, "LoRA", "difference").value == pytest.approx(100 * (values[1] - values[0]))
    assert cell(table, "LoRA", "spread").value == pytest.approx(100 * cell(table, "LoRA", "pearson").sd)


def test_a_table_made_for_another_kind_of_task_shows_and_judges_its_scores(scores_of_a_regression):
    table = scores_of_a_regression()
    assert [column.key for column in table.columns] == ["share", "pearson", "p_best", "difference", "spread"]
    assert table.claims[0].verdict == "cannot be told" and table.claims[0].measured.startswith("−")


def test_a_score_that_is_no_number_fails_its_run_alone(scores_of_a_regression):
    table = scores_of_a_regression(("lora", 1))
    assert [run.status for run in table.rows[1].runs] == ["finished", "failed"]
    assert "failed: LoRA, seed 1: its score on validation is no number" in table.notes
    assert cell(table, "LoRA", "pearson").n == 1


def test_training_time_is_told_by_one_full_step(make):
    def step(ratio, full_ms):
        ends = {"ratio_low": ratio - 0.01, "ratio_high": ratio + 0.01}
        return {"ratio": ratio, **ends, "ms": ratio * full_ms, "full_ms": full_ms, "batch_size": 32}

    planned = [make("full", "full", 0, 0.85, training_step=step(1.0, 400))]
    planned += [make("LoRA", "lora", 0, 0.84, training_step=step(0.5, 500))]  # a slower moment
    planned += [make("bad", "bitfit", 0, 0.6, training_step=step(0.6, 400))]
    for number, one in enumerate(planned):
        one.config["trainer"].update(lr=10.0**-number, batch_size=32)  # each method's own rate
    table = build_table(read_spec("made", RAW, 1), collect(planned), "x")
    seconds = {row.label: row.cells["training"] for row in table.rows}
    assert [one.value for one in seconds.values()] == pytest.approx([8.0, 4.0, 4.8])
    assert seconds["LoRA"].low == pytest.approx(3.92) and seconds["LoRA"].high == pytest.approx(4.08)
    assert cell(table, "LoRA", "train_time").low is None, "one run as it went says nothing of another"


def test_rows_that_others_need_are_no_part_of_the_table(make):
    raw = {**RAW, "prepare": [{"label": "first", "overrides": ["task=stsb"]}]}
    planned = [make(label, method, 0, 0.8) for label, method in (("full", "full"), ("LoRA", "lora"), ("bad", "bitfit"))]
    first = make("first", "head", 0, 0.8, data="of another task")
    first.config["task"].update(name="stsb")
    table = build_table(read_spec("made", raw, 1), collect([*planned, first]), "x")
    assert table.task == "mrpc" and [row.label for row in table.rows] == ["full", "LoRA", "bad"]
    assert all(run.used for row in table.rows for run in row.runs)


def test_latency_is_read_at_batch_1_and_speed_at_the_largest(table):
    assert cell(table, "LoRA", "latency").value == 1.25
    assert cell(table, "LoRA", "latency_merged").value == 1.0
    assert cell(table, "LoRA", "speed").value == pytest.approx(100 / 1.125 - 100)
    assert cell(table, "LoRA", "speed").low < cell(table, "LoRA", "speed").value
    assert "latency_merged" not in table.rows[0].cells


def test_verdicts_on_the_lab_s_figures(table):
    assert cell(table, "LoRA", "share").verdict == "holds"
    assert cell(table, "LoRA", "accuracy").verdict == "cannot be told"
    assert cell(table, "bad", "accuracy").verdict == "does not hold"
    assert cell(table, "bad", "kept").verdict == "does not hold"


def test_figures_of_another_model_are_left_out_and_claims_are_judged_on_this_one(make):
    accuracies = (("full", "full", 0.85), ("LoRA", "lora", 0.84), ("bad", "bitfit", 0.6))
    planned = [make(label, method, seed, accuracy) for label, method, accuracy in accuracies for seed in (0, 1)]
    rows = [{**RAW["rows"][0], "published": {"accuracy": "85 (Houlsby et al. 2019)"}}, *RAW["rows"][1:]]
    raw = {**RAW, "rows": rows, "base": ["model=bert_base", "task=mrpc"]}
    table = build_table(read_spec("made", raw, 2), collect(planned), "peftbench sweep table=made")
    cells = [cell for row in table.rows for cell in row.cells.values()]
    assert all((cell.lab, cell.verdict, cell.published) == (None, None, None) for cell in cells)
    assert len(table.claims) == len(RAW["claims"]) and any(claim.measured for claim in table.claims)
    assert "are of bert_base on mrpc: figures are left out, claims judged here on minilm and" in table.notes[-1]
    none_to_leave_out = [{**row, "lab": {}} for row in RAW["rows"]]
    raw = {**raw, "rows": none_to_leave_out, "claims": []}
    assert not build_table(read_spec("made", raw, 2), collect(planned), "x").notes
    at_home = build_table(read_spec("made", {**raw, "rows": rows, "base": RAW["base"]}, 2), collect(planned), "x")
    assert cell(at_home, "full", "accuracy").published and cell(at_home, "bad", "kept").verdict == "does not hold"


def test_verdicts_on_the_lab_s_claims(table):
    verdicts = {claim.text: claim.verdict for claim in table.claims}
    assert verdicts == {
        "LoRA beats BitFit": "holds",
        "BitFit beats LoRA": "does not hold",
        "LoRA beats full": "cannot be told",
        "LoRA is free": "holds",
        "LoRA against full": "holds",
        "nobody knows": "not measured",
    }


def test_what_is_missing_failed_or_of_other_code_is_left_out_and_named(make):
    planned = [make("full", "full", seed, 0.85) for seed in (0, 1)]
    planned += [make("LoRA", "lora", 0, 0.84), make("LoRA", "lora", 1, 0.2, code="0ld", commit="abcdef123456")]
    planned += [make("bad", "bitfit", 0, 0.6), make("bad", "bitfit", 1, None)]
    Record(planned[4].folder).fail(Status.OOM, "out of memory: lower trainer.batch_size")
    table = build_table(read_spec("made", RAW, 2), collect(planned), "peftbench sweep table=made")
    assert cell(table, "LoRA", "accuracy").value == pytest.approx(84) and cell(table, "LoRA", "accuracy").n == 1
    assert [run.status for run in table.rows[1].runs] == ["finished", "stale"]
    assert [run.status for run in table.rows[2].runs] == ["oom", "missing"]
    assert "accuracy" not in table.rows[2].cells or table.rows[2].cells["accuracy"].value is None
    notes = "\n".join(table.notes)
    assert "oom: bad, seed 0: out of memory: lower trainer.batch_size" in notes
    assert "1 of 6 runs are missing: peftbench sweep table=made" in notes
    assert (
        f"made by other code (peftbench 0.1.0, commit abcdef1): {planned[3].folder.name}" in notes
        and "stale=rerun" in notes
    )
    used = build_table(read_spec("made", RAW, 2), collect(planned, use_stale=True), "peftbench sweep table=made")
    assert cell(used, "LoRA", "accuracy").n == 2
    assert "figures of LoRA are from runs of other code" in "\n".join(used.notes)


def test_runs_over_other_data_are_never_mixed_in(make):
    planned = [make("full", "full", seed, 0.85) for seed in (0, 1)]
    planned += [make("LoRA", "lora", 0, 0.84), make("LoRA", "lora", 1, 0.84, data="other")]
    for stale in (False, True):
        table = build_table(read_spec("made", RAW, 2), collect(planned, use_stale=stale), "x")
        assert cell(table, "LoRA", "accuracy").n == 1
        assert f"made from other data than the other runs: {planned[3].folder.name}" in "\n".join(table.notes)


def test_runs_on_other_files_are_no_other_data(make):
    """Rows that are prepared on other files, under one task's name, are compared with none."""
    planned = [make("full", "full", seed, 0.85) for seed in (0, 1)]
    other = [make("part", "lora", seed, 0.84, data="other") for seed in (0, 1)]
    task = {**other[0].config["task"], "splits": {"train": "other.csv", "validation": "others.csv"}}
    other = [replace(run, config={**run.config, "task": task}) for run in other]
    assert [run.status for run in collect([*planned, *other])] == ["finished"] * 4


def test_a_table_without_any_run(make):
    planned = [
        make(label, method, 0, None) for label, method in (("full", "full"), ("LoRA", "lora"), ("bad", "bitfit"))
    ]
    table = build_table(read_spec("made", RAW, 1), collect(planned), "peftbench sweep table=made")
    assert table.examples is None and all(claim.verdict == "not measured" for claim in table.claims)
    assert "3 of 3 runs are missing" in "\n".join(table.notes)


def test_the_score_of_human_raters_is_said_where_it_is_known(make):
    def built(**task):
        planned = [
            make(label, method, 0, None) for label, method in (("full", "full"), ("LoRA", "lora"), ("bad", "bitfit"))
        ]
        planned[0].config["task"].update(task)
        return build_table(read_spec("made", RAW, 1), collect(planned), "peftbench sweep table=made")

    known, unknown = built(ceiling={"accuracy": 0.985, "f1": 0.9}), built()
    assert known.ceiling == 98.5 and unknown.ceiling is None
    said = "human ceiling, one half of the raters against the other: accuracy 98.5 % (scripts/human_ceiling.py)"
    assert known.reading == [*unknown.reading, said]


@pytest.mark.parametrize("classes, title", [(2, "F1"), (3, "F1 (macro)")])
def test_f1_of_several_classes_is_called_what_it_is(make, classes, title):
    planned = [make("full", "full", seed, 0.85) for seed in (0, 1)]
    for run in planned:
        record, labels = Record(run.folder), np.arange(EXAMPLES) % classes
        record.write_predictions({"validation": Predictions(labels, labels, np.eye(classes)[labels])}, "abc"[:classes])
        record.finish()
    raw = {**RAW, "rows": RAW["rows"][:1], "columns": ["f1"], "claims": []}
    table = build_table(read_spec("made", raw, 2), collect(planned), "x")
    assert [column.title for column in table.columns] == [title]


def test_rows_of_two_tasks_are_not_compared(make):
    planned = [
        make(label, method, seed, 0.8) for label, method in (("full", "full"), ("LoRA", "lora")) for seed in (0, 1)
    ]
    for run in planned[2:]:
        run.config["task"].update(name="rte")
        labels = np.arange(100) % 2
        Record(run.folder).write_predictions(
            {"validation": Predictions(labels, labels, np.eye(2)[labels])}, ["no", "yes"]
        )
        Record(run.folder).finish(**finished_fields({"validation": {"accuracy": 1.0, "f1": 1.0}}, {"validation": 100}))
    raw = {**RAW, "rows": RAW["rows"][:2], "claims": []}
    table = build_table(read_spec("made", raw, 2), collect(planned), "x")
    assert cell(table, "LoRA", "accuracy").n == 2 and "difference" not in table.rows[1].cells
    assert "whether it is better cannot be told" in table.conclusion
