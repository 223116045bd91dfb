"""From overrides to a search space, and from a space to trials."""

import math

import pytest

from peftbench.errors import UserError
from peftbench.search.space import Choices, Interval, grid, read_space, sample

RATE = "trainer.lr=tag(log,interval(1e-5,1e-2))"


def test_what_has_several_values_is_searched_and_the_rest_is_of_every_trial():
    space = read_space(["method=lora", "trainer.lr=1e-4,3e-4", "~model.dropout", RATE.replace("trainer.lr", "x")])
    assert space.keys == ["trainer.lr", "x"]
    assert space.fixed == ("method=lora", "~model.dropout")
    assert space.dimensions[1] == Interval("x", 1e-5, 1e-2, True, "x=tag(log,interval(1e-5,1e-2))")


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("x=1,2", ("1", "2")),
        ("x=1e-4,1e-4,0.1", ("0.0001", "0.1")),
        ("x=choice(a,b)", ("a", "b")),
        ("x=[query],[query,value]", ("[query]", "[query,value]")),
        ("x=null,0.1", ("null", "0.1")),
        ("x='a b',c", ("'a b'", "c")),
        ("x=range(1,4)", ("1", "2", "3")),
        ("x=shuffle(range(9,0,-3))", ("9", "6", "3")),
        ("x=range(0.1,0.35,0.1)", ("0.1", "0.2", "0.3")),
        ("+method.x=1,2", ("1", "2")),
    ],
)
def test_lists_and_ranges(override, values):
    (dimension,) = read_space([override]).dimensions
    assert isinstance(dimension, Choices) and dimension.values == values


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("x=range(1,4)", "x=range(1,3,1)"),
        ("x=range(9,0,-3)", "x=range(3,9,3)"),
        ("x=range(0.1,0.35,0.1)", "x=range(0.1,0.3,0.1)"),
        ("x=range(4,5)", "x=range(4,4,1)"),
        ("x=a,b", "x=a,b"),
    ],
)
def test_a_range_for_optuna_ends_with_its_last_value(override, line):
    assert read_space([override]).dimensions[0].line == line


def test_a_grid_has_every_combination_in_order():
    space = read_space(["a=1,2", "b=x,y"])
    expected = [("1", "x"), ("1", "y"), ("2", "x"), ("2", "y")]
    assert [tuple(point.values()) for point in grid(space)] == expected


def test_random_draws_repeat_with_their_seed_and_more_of_them_only_add():
    space = read_space([RATE, "method.rank=4,8,16"])
    assert sample(space, 10, seed=0) == sample(space, 20, seed=0)[:10]
    assert sample(space, 10, seed=0) != sample(space, 10, seed=1)


def test_random_draws_respect_intervals_choices_and_the_logarithm():
    points = sample(read_space([RATE, "trainer.warmup=interval(0,0.2)", "method.rank=4,8,16"]), 600, seed=0)
    rates = [float(point["trainer.lr"]) for point in points]
    assert min(rates) >= 1e-5 and max(rates) <= 1e-2
    thirds = [sum(low <= math.log10(rate) < low + 1 for rate in rates) for low in (-5, -4, -3)]
    assert all(150 < count < 250 for count in thirds)
    warmups = [float(point["trainer.warmup"]) for point in points]
    assert all(0 <= warmup <= 0.2 for warmup in warmups) and 0.09 < sum(warmups) / 600 < 0.11
    assert {point["method.rank"] for point in points} == {"4", "8", "16"}


def test_whole_numbers_are_drawn_up_to_both_ends():
    points = sample(read_space(["method.rank=int(interval(1,4))", "x=interval(0,1)"]), 400, seed=0)
    ranks = [point["method.rank"] for point in points]
    assert all(70 < ranks.count(rank) < 130 for rank in ("1", "2", "3", "4")) and len(set(ranks)) == 4
    points = sample(read_space(["method.rank=tag(log,int(interval(1,64)))"]), 64, seed=0)
    assert {int(point["method.rank"]) for point in points} <= set(range(1, 65))


def test_no_combination_comes_twice_and_a_small_space_is_used_up():
    points = sample(read_space(["a=1,2,3", "b=range(0,3)"]), 20, seed=0)
    assert len(points) == 9 == len({tuple(point.values()) for point in points})
    points = sample(read_space(["a=1,2,3", "b=range(0,3)"]), 8, seed=0)
    assert len(points) == 8 == len({tuple(point.values()) for point in points})


def test_what_a_sweeper_drew_is_written_as_our_own_draws_are():
    space = read_space([RATE, "method.rank=int(interval(1,64))", "x=0.12345,2"])
    drawn = {"method": "lora", "trainer.lr": "0.00031622776601683794", "method.rank": "7", "x": "0.12345"}
    assert space.point(drawn) == {"trainer.lr": "0.000316", "method.rank": "7", "x": "0.12345"}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["method=lora"], "there is nothing to search: give a setting several values"),
        (["seed=0,1"], "seed=0,1: seed is no hyper-parameter: give it one value"),
        (["task=rte,mrpc"], "task is no hyper-parameter"),
        (["task.threshold=2,3"], "task.threshold is no hyper-parameter"),
        (["search.trials=1,2"], "search.trials is no hyper-parameter"),
        (["hydra/launcher=basic,joblib"], "hydra.launcher is no hyper-parameter"),
        (["x=interval(2,1)"], "x=interval(2,1): an interval goes from the smaller to the larger number"),
        (["x=tag(log,interval(0,1))"], "on a logarithmic scale the interval must begin above 0"),
        (["x=range(4,1)"], "x=range(4,1): this range is empty"),
        (["method=glob(*)"], "method=glob(*): name the values, e.g. method=a,b"),
        (["x=choice(1"], "cannot read 'x=choice(1'"),
    ],
)
def test_mistakes(overrides, says):
    with pytest.raises(UserError) as caught:
        read_space(overrides)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_an_interval_has_no_grid():
    with pytest.raises(UserError, match="a grid needs a list of values"):
        grid(read_space([RATE]))
