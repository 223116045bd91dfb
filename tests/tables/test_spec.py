"""A table's spec as people write it: what is taken as meant, and what is refused with its reason."""

import pytest

from peftbench.errors import UserError
from peftbench.tables.spec import read_spec

RAW = {
    "title": "Sizes",
    "baseline": 8,
    "columns": ["accuracy"],
    "rows": [{"label": 8, "overrides": ["method.bottleneck=8"]}, {"label": "default", "overrides": None, "lab": None}],
    "claims": [{"text": "smaller is better", "column": "accuracy", "ascending": ["default", 8]}],
}


def test_labels_that_look_like_numbers_and_rows_without_overrides():
    spec = read_spec("sizes", RAW, [0, 2])
    assert [row.label for row in spec.rows] == ["8", "default"] and spec.baseline == "8"
    assert spec.rows[1].overrides == [] and spec.rows[1].lab == {}
    assert spec.claims[0].ascending == ["default", "8"] and spec.seeds == [0, 2]


@pytest.mark.parametrize(
    ("columns", "metrics", "shown"),
    [
        (["share", "accuracy", "f1", "spread"], ["accuracy"], ["share", "accuracy", "spread"]),
        (["share", "miou", "ap", "spread"], ["ap", "ap50"], ["share", "ap", "spread"]),
        (["share", "accuracy", "f1"], ["pearson", "spearman"], ["share", "pearson", "spearman"]),
        (["accuracy", "kept"], ["macro_f1", "accuracy"], ["accuracy", "kept"]),
        (["share", "kept"], ["matthews"], ["share", "kept"]),
    ],
)
def test_a_table_shows_the_scores_that_the_task_has(columns, metrics, shown):
    assert read_spec("sizes", {**RAW, "columns": columns}, 2).for_metrics(metrics).columns == shown


def test_figures_of_a_score_that_the_task_does_not_have_are_left_out():
    figures = {"published": {"miou": "46", "ap": "48", "share": "1"}, "lab": {"ap": 40.0, "latency": 1.1}}
    row = {"label": 8, "overrides": [], **figures}
    (shown,) = read_spec("sizes", {**RAW, "rows": [row], "claims": []}, 2).for_metrics(["miou"]).rows
    assert shown.published == {"miou": "46", "share": "1"} and shown.lab == {"latency": 1.1}


def test_a_claim_on_a_score_that_the_task_does_not_have_is_judged_on_its_first():
    least = {"text": "t", "column": "accuracy", "row": 8, "between": [80, 90]}
    claims = read_spec("sizes", {**RAW, "claims": [*RAW["claims"], least]}, 2).for_metrics(["miou", "ap"]).claims
    assert [claim.column for claim in claims] == ["miou", "accuracy"]  # how high it is says nothing of another score


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"base": ["=3"]}, "cannot read '=3': write key=value"),
        ({"columns": "accuracy"}, "table=sizes: columns must be a list, not 'accuracy'"),
        ({"rows": [{"label": 8, "overrides": "method=lora"}]}, "overrides must be a list, not 'method=lora'"),
        ({"rows": [{"label": 8, "overrides": [], "lab": {"accuracy": "88 %"}}]}, "accuracy must be a number, not"),
        ({"rows": [{"label": 8, "overrides": [], "lab": {"accuracy": True}}]}, "accuracy must be a number, not True"),
        ({"rows": [{"label": 8, "overrides": [], "lab": 80}]}, "the lab's figures must be by column, such as"),
        ({"rows": [{"label": 8, "overrides": [], "lab": {1: 80}}]}, "there is no column 1"),
        ({"rows": [{"label": 8, "overrides": [], "published": "88 %"}]}, "published must be by column, such as"),
        ({"rows": [{"label": "", "overrides": []}]}, "a row: the label must be a text, not ''"),
        ({"rows": [{"label": None, "overrides": []}]}, "a row: the label must be a text, not None"),
        *(({"columns": ["share", key]}, "there is no column") for key in (1, None, ["f1"], {"f1": 1})),
        *(
            ({"claims": [{"text": "t", "column": key, "ascending": ["default", 8]}]}, "there is no column")
            for key in (1, None, ["f1"], {"f1": 1})
        ),
        ({"claims": [{"text": "t", "column": "accuracy", "ascending": None}]}, "needs either ascending rows, or row"),
        (
            {"claims": [{"text": "t", "column": "accuracy", "row": 8, "between": None}]},
            "needs either ascending rows, or row",
        ),
        ({"claims": [{"text": "t", "column": "accuracy", "row": 8, "between": [0, "x"]}]}, "must be two numbers"),
        ({"claims": [{"text": "t", "column": "accuracy", "row": "", "between": [0, 1]}]}, "is about no row"),
        ({"tolerance": 1}, "tolerance must be by column, such as"),
        ({"tolerance": {"accuracy": "1 %"}}, "accuracy must be a number, not '1 %'"),
        ({"delta": 10**400}, "must be a number of points"),
        ({"rows": [{"overrides": []}]}, "lacks 'label'"),
        ({"prepare": [{"label": "default", "overrides": []}]}, "two rows are labelled 'default'"),
        ({"claims": [{"text": "t", "column": "speed", "row": 8, "over": "default", "between": [0, 1]}]}, "0 or less"),
        (
            {"claims": [{"text": "t", "column": "accuracy", "row": 8}]},
            "needs either ascending rows, or row and between",
        ),
    ],
)
def test_what_cannot_be_meant(change, says):
    with pytest.raises(UserError, match=says) as error:
        read_spec("sizes", {**RAW, **change}, 1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seeds", [0, -1, True, 1_001, 10**400, [], [0, -1], [True], "three", 1.5])
def test_bad_seeds(seeds):
    with pytest.raises(UserError, match="must be a number of seeds"):
        read_spec("sizes", RAW, seeds)


HYDRAS = [
    "hydra.launcher._target_=os.system",
    "+hydra.callbacks.a._target_=evil",
    "++hydra.job.env_set.A=1",
    "~hydra",
    "hydra/launcher=joblib",
    "hydra.searchpath=[pkg://evil]",
]


@pytest.mark.parametrize("line", HYDRAS)
@pytest.mark.parametrize("place", ["base", "rows", "prepare"])
def test_a_table_does_not_set_what_hydra_runs(line, place):
    raw = {"title": "Tiny", "baseline": "a", "columns": ["accuracy"], "rows": [{"label": "a", "overrides": []}]}
    raw[place] = [line] if place == "base" else [{"label": "a", "overrides": [line]}]
    with pytest.raises(UserError, match="Hydra's own settings belong on the command line"):
        read_spec("tiny", raw, 1)
