"""What a comparison answers within limits, on figures made by hand."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from made_table import made_table

from peftbench.advice.answer import answer
from peftbench.advice.comparison import LOCAL, Candidate, Comparison, task_type
from peftbench.advice.limits import Limits, figures
from peftbench.advice.sentences import conclusion
from peftbench.commands.recommend import _answering
from peftbench.recommend.sentence import headline
from peftbench.tables.table import Cell, Pair

BACKBONE = 2**20  # parameters, so that the weights of the backbone are 4 MiB


def candidate(name, score, share, **cells):
    made = {"accuracy": Cell(score, 0.5, 3), "share": Cell(share, None, 3)}
    return Candidate(name, [f"method={name}"], {"name": name}, made | {key: Cell(*cell) for key, cell in cells.items()})


def compare(*candidates, pairs=()):
    return Comparison(
        LOCAL, "t", "s", "m", "x", "pair", "test", "accuracy", list(candidates), list(pairs), backbone=BACKBONE
    )


FULL = candidate("full", 86.0, 100.0, latency=(1.0,), memory=(900.0,))
LORA = candidate("lora", 85.5, 0.5, latency=(1.05, None, 1, 1.04, 1.06), latency_merged=(1.0,), memory=(500.0,))
PREFIX = candidate("prefix", 85.0, 0.4, latency=(1.2,), memory=(600.0,))
HEAD = candidate("head", 70.0, 0.0, latency=(1.0,))
PAIRS = [
    Pair("full", "lora", 0.5, -0.5, 1.5),
    Pair("head", "full", -16, -18, -14),
    Pair("prefix", "lora", -0.5, -1, 0.1),
]
ALL = compare(FULL, LORA, PREFIX, HEAD, pairs=PAIRS)


def test_ties_are_seen_from_either_side_and_the_cheapest_is_first():
    said = answer(ALL, Limits())
    assert said.best is FULL
    assert said.ties == [Pair("lora", "full", -0.5, -1.5, 0.5)]
    assert said.cheapest is LORA
    assert [pair.row for pair in said.lower] == ["head"]
    assert said.not_compared == ["prefix"]


def test_the_cheapest_of_those_that_do_not_differ_is_named_by_the_table_s_delta():
    pairs = [
        Pair("lora", "full", -0.5, -1.8, 0.8, "not different"),
        Pair("prefix", "full", -1.0, -4, 2, "cannot be told"),
    ]
    said = answer(replace(compare(FULL, LORA, PREFIX, pairs=pairs), delta=2.0), Limits())
    assert [pair.row for pair in said.ties] == ["prefix", "lora"]
    assert "any of these 2, of which none differs from the highest by more than 2 points" in headline(said, 2.0)
    assert "The cheapest is lora" in headline(said, 2.0)
    only = answer(replace(compare(FULL, LORA, pairs=pairs), delta=2.0), Limits())
    assert "(not different by more than 2 points)" in conclusion(only)


def of_seeds(name, score, share, seeds):
    of_one = candidate(name, score, share)
    around = (score - 1, score + 1) if seeds > 1 else (None, None)
    return replace(of_one, cells=of_one.cells | {"accuracy": Cell(score, None, seeds, *around)})


def test_the_headline_names_the_rows_that_are_not_compared():
    rows, pairs = [of_seeds("x", 80, 1, 3), of_seeds("y", 79, 0.5, 3)], [Pair("x", "y", 5, 2, 8, "better")]
    single = of_seeds("z", 78, 0.2, 1)
    said = headline(answer(compare(*rows, single, pairs=[*pairs, Pair("x", "z", 2)]), Limits()), 1.0)
    assert said.endswith(" Not compared with it, for want of a second seed: z.") and "Nothing says" not in said
    for alone in ([single], [single, of_seeds("w", 70, 0.1, 1)]):
        assert headline(answer(compare(*alone), Limits()), 1.0).endswith("how sure that is: it takes two seeds.")
    for compared in (rows, rows[:1]):
        assert "two seeds" not in headline(answer(compare(*compared, pairs=pairs), Limits()), 1.0)


def test_the_headline_says_which_limits_it_may_be_over():
    unmeasured = headline(answer(compare(HEAD), Limits(memory=1000)), 1.0)
    assert "Not held to a limit, for it was not measured: training memory." in unmeasured
    crossing = answer(compare(LORA), Limits(latency=1.05, tasks=2))
    assert headline(crossing, 1.0).endswith("The interval of its latency reaches over the limit.")
    outcome = SimpleNamespace(answer=crossing, table=made_table())
    notes = _answering(outcome, "Take lora", Limits(latency=1.05, tasks=2), []).notes
    assert "lora: the interval of latency reaches over the limit" in notes


def test_without_limits_the_front_holds_what_nothing_surpasses():
    assert answer(ALL, Limits()).front == ["full", "lora", "prefix", "head"]
    surpassed = candidate("bitfit", 84.0, 0.6, latency=(1.3,), memory=(700.0,))
    assert answer(compare(LORA, surpassed), Limits()).front == ["lora"]


@pytest.mark.parametrize(
    ("limits", "best", "over"),
    [
        (Limits(share=1), "lora", {"full": ["share"]}),
        (Limits(latency=1.1), "full", {"prefix": ["latency"]}),
        (Limits(share=1, tasks=3), "head", {"full": ["share"], "lora": ["share"], "prefix": ["share"]}),
        (Limits(latency=1.02, tasks=2), "full", {"lora": ["latency"], "prefix": ["latency"]}),
        (Limits(memory=5, tasks=2), None, {"full": ["memory", "weights"], "lora": ["memory"], "prefix": ["memory"]}),
    ],
)
def test_what_is_over_a_limit_is_no_answer(limits, best, over):
    said = answer(ALL, limits)
    assert (said.best and said.best.label) == best
    assert {label: list(of_one) for label, of_one in said.over.items()} == over


def test_what_lacks_a_limited_figure_is_no_answer_where_others_have_it():
    said = answer(ALL, Limits(memory=1000))
    assert said.lacking == {"head": ["memory"]} and said.best is FULL
    nobody = answer(compare(HEAD), Limits(memory=1000))
    assert nobody.unchecked == ["memory"] and nobody.best is HEAD
    assert conclusion(nobody).endswith("Not held to a limit, for it was not measured: training memory.")


def test_an_interval_that_reaches_over_the_limit_is_named():
    said = answer(ALL, Limits(latency=1.05, tasks=2))
    assert said.unsure == {"lora": ["latency"]} and "lora" not in said.over


def test_weights_and_share_are_of_all_tasks():
    assert figures(LORA, ALL, 1)["latency"].value == 1.0
    several = figures(LORA, ALL, 10)
    assert several["share"].value == 5.0
    assert several["weights"].value == pytest.approx(4 * 1.05)
    assert several["latency"].value == 1.05  # merged weights are one task's alone
    assert figures(FULL, ALL, 10)["weights"].value == pytest.approx(40)


def test_types_of_tasks():
    pair = {"text": ["a", "b"], "metrics": ["accuracy"]}
    assert task_type(pair) == "pair"
    assert task_type({**pair, "text": ["a"]}) == "classification"
    assert task_type({**pair, "metrics": ["pearson", "spearman"]}) == "regression"
    assert task_type({"kind": "images", "metrics": ["accuracy"]}) == "images"
