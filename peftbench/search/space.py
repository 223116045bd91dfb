"""A search space in Hydra's sweep syntax: from overrides to the trials of a grid or of random draws."""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from peftbench.config.mistakes import translate
from peftbench.errors import UserError

# what a trial is called, where it lies, what it is measured by or how it is started: nothing of it can win
_NOT_SEARCHED = (
    *("search", "table", "seed", "stale", "experiment", "output_dir", "device", "threads", "force"),
    *("logger", "measure", "hydra"),
)
# draws that a space without enough combinations is given before it counts as used up
_DRAWS_PER_TRIAL = 1000

# a trial's own settings: key → value, as an override writes them
Point = dict[str, str]


@dataclass(frozen=True)
class Choices:
    """A setting with a list of values, as an override writes them; `line` is the override for Optuna's sweeper."""

    key: str
    values: tuple[str, ...]
    line: str


@dataclass(frozen=True)
class Interval:
    """A setting drawn from low … high, whole numbers where both are; evenly in the logarithm with `log`."""

    key: str
    low: float
    high: float
    log: bool
    line: str


@dataclass(frozen=True)
class Space:
    """What is searched, and the settings that all trials share."""

    dimensions: tuple[Choices | Interval, ...]
    fixed: tuple[str, ...]

    @property
    def keys(self) -> list[str]:
        """The settings that are searched."""
        return [dimension.key for dimension in self.dimensions]

    def point(self, drawn: Point) -> Point:
        """Return what a sweeper drew, numbers of intervals at the precision of our own draws."""
        intervals = {d.key: d for d in self.dimensions if isinstance(d, Interval)}
        return {
            key: _written(float(drawn[key]), intervals[key]) if key in intervals else drawn[key] for key in self.keys
        }


def read_space(overrides: Sequence[str]) -> Space:
    """Read the overrides with several values as dimensions, the others as settings of every trial.

    Raises UserError where nothing has several values, or something that is no hyper-parameter does.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise translate(error, overrides) from error
    swept = {o.get_key_element(): o for o in parsed if o.is_sweep_override()}
    for override in swept.values():
        path = override.key_or_group.replace("/", ".")
        if path.split(".")[0] in _NOT_SEARCHED or _is_of_the_task(path):
            raise UserError(f"{override.input_line}: {path} is no hyper-parameter: give it one value")
    if not swept:
        raise UserError("there is nothing to search: give a setting several values, e.g. 'trainer.lr=1e-4,3e-4,1e-3'")
    return Space(
        dimensions=tuple(_dimension(override) for override in swept.values()),
        fixed=tuple(str(o.input_line) for o in parsed if not o.is_sweep_override()),
    )


def _is_of_the_task(path: str) -> bool:
    """Tell what another task is made of: its scores are not to be compared."""
    return path.split(".")[0] == "task" and path != "task.max_length"


def _dimension(override: Override) -> Choices | Interval:
    key, line, sweep = override.get_key_element(), str(override.input_line), override.value()
    if isinstance(sweep, IntervalSweep):
        low, high, log = sweep.start, sweep.end, "log" in sweep.tags
        assert low is not None and high is not None
        if not low < high:
            raise UserError(f"{line}: an interval goes from the smaller to the larger number")
        if log and low <= 0:
            raise UserError(f"{line}: on a logarithmic scale the interval must begin above 0")
        return Interval(key, low, high, log, line)
    if isinstance(sweep, ChoiceSweep | RangeSweep):
        sweep.shuffle = False  # a search is to be repeatable
        values = tuple(dict.fromkeys(override.sweep_string_iterator()))
        if not values:
            raise UserError(f"{line}: this range is empty")
        if isinstance(sweep, RangeSweep):
            values = tuple(map(_clean, values))
            return Choices(key, values, _closed(key, values))
        return Choices(key, values, line)
    raise UserError(f"{line}: name the values, e.g. {key}=a,b")


def _clean(value: str) -> str:
    """Write 0.30000000000000004, as a range counts, as 0.3."""
    return value if value.lstrip("-").isdecimal() else str(float(f"{float(value):.12g}"))


def _closed(key: str, values: tuple[str, ...]) -> str:
    """Write a range for Optuna's sweeper, which takes its end as a value too."""
    ends = sorted([values[0], values[-1]], key=float)
    step = _clean(str(abs(float(values[1]) - float(values[0])))) if len(values) > 1 else "1"
    whole = all(value.lstrip("-").isdecimal() for value in values)
    return f"{key}=range({ends[0]},{ends[1]},{int(float(step)) if whole else step})"


def grid(space: Space) -> list[Point]:
    """Return every combination, the last setting varying fastest; raises UserError for an interval."""
    lists = []
    for dimension in space.dimensions:
        if isinstance(dimension, Interval):
            raise UserError(f"{dimension.line}: a grid needs a list of values; search=random draws from intervals")
        lists.append(dimension.values)
    return [dict(zip(space.keys, values, strict=True)) for values in itertools.product(*lists)]


def sample(space: Space, trials: int, seed: int) -> list[Point]:
    """Return random combinations, all different; fewer than `trials` where the space has no more.

    The same seed gives the same ones, and more trials only add to them.
    """
    draws = random.Random(seed)
    points: dict[tuple[str, ...], Point] = {}
    for _ in range(_DRAWS_PER_TRIAL * trials):
        point = {dimension.key: _draw(dimension, draws) for dimension in space.dimensions}
        points.setdefault(tuple(point.values()), point)
        if len(points) == trials:
            break
    return list(points.values())


def _draw(dimension: Choices | Interval, draws: random.Random) -> str:
    if isinstance(dimension, Choices):
        return draws.choice(dimension.values)
    low, high = dimension.low, dimension.high
    if _is_whole(dimension):
        low, high = low - 0.5, high + 0.5  # each whole number draws what rounds to it, the ends too
    if dimension.log:
        return _written(math.exp(draws.uniform(math.log(low), math.log(high))), dimension)
    return _written(draws.uniform(low, high), dimension)


def _written(value: float, interval: Interval) -> str:
    """Write a number to three digits, which is as much as a hyper-parameter means, and inside its interval."""
    if _is_whole(interval):
        return str(min(max(round(value), int(interval.low)), int(interval.high)))
    return str(min(max(float(f"{value:.3g}"), interval.low), interval.high))


def _is_whole(interval: Interval) -> bool:
    return isinstance(interval.low, int) and isinstance(interval.high, int)
