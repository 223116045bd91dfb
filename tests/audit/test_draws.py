"""What systems might have scored on other examples: as simulated, and told apart by luck as rarely as said."""

import numpy as np
import pytest
from evidences import answers

from peftbench.audit.build import build_audit
from peftbench.audit.draws import draw_scores
from peftbench.audit.evidence import Evidence, System
from peftbench.audit.one_seed import compare_runs


def evidence(systems, paired=True):
    examples = next(iter(systems.values())).shape[1]
    found = {}
    for name, values in systems.items():
        seeds, scores = [str(seed) for seed in range(len(values))], values.mean(axis=1)
        errors = None if paired else np.sqrt(scores * (1 - scores) / examples)
        found[name] = System(seeds, scores, values.astype(float) if paired else None, errors)
    return Evidence("made", "correct", found, examples)


def test_draws_vary_as_the_bootstrap_does():
    systems = answers({"full": 0.85, "lora": 0.8}, 800, seeds=2)
    draws = draw_scores(evidence(systems))
    values = np.concatenate(list(systems.values()))
    counts = np.random.default_rng(1).multinomial(800, np.full(800, 1 / 800), size=10_000)
    bootstrap = np.cov(counts @ values.T / 800, rowvar=False)
    drawn = np.cov(np.concatenate([draws["full"], draws["lora"]], axis=1)[1:], rowvar=False)
    assert drawn == pytest.approx(bootstrap, rel=0.05)
    assert draws["full"][0] == pytest.approx(systems["full"].mean(axis=1))


def answered(wrong, seeds=3):
    return np.tile(np.arange(400) >= wrong, (seeds, 1))


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("wrong, told", [(5, False), (6, True)])
def test_few_examples_on_one_side_tell_as_the_sign_test_does_however_many_seeds_agree(wrong, told, seeds):
    table = build_audit(evidence({"full": answered(0, seeds), "lora": answered(wrong, seeds)}), 1.0, "")
    assert (table.pairs[0].verdict == "better") is told


@pytest.mark.parametrize("seeds", [1, 3])
def test_scores_of_a_wide_range_tell_by_what_systems_differ_in(seeds):
    """A log-likelihood lies between 0 and −500 by the text, and one system's above the other's by 0.05 ± 0.1."""
    generator = np.random.default_rng(0)
    of_text = -np.exp(generator.normal(3, 1, 1000))
    noise = {name: 0.1 * generator.standard_normal(1000) for name in ("better", "worse", "equal")}
    systems = {name: of_text + of_system + (0.05 if name == "better" else 0) for name, of_system in noise.items()}
    repeated = {
        name: of_system + 1e-3 * generator.standard_normal((seeds, 1000)) for name, of_system in systems.items()
    }
    verdicts = {
        frozenset((pair.row, pair.other)): pair.verdict for pair in build_audit(evidence(repeated), 1.0, "").pairs
    }
    assert verdicts[frozenset(("better", "worse"))] == "better" and verdicts[frozenset(("equal", "worse"))] not in (
        "better",
        "lower",
    )


def test_systems_that_answered_alike_share_the_first_place():
    table = build_audit(evidence({f"s{number}": answered(60) for number in range(4)}), 1.0, "")
    assert [row.cells["p_best"].value for row in table.rows] == pytest.approx([25] * 4, abs=1.5)


def test_unpaired_systems_are_independent_and_seeds_are_not():
    draws = draw_scores(evidence(answers({"full": 0.85, "lora": 0.8}, 800, seeds=2), paired=False))
    ours, theirs = draws["full"][1:], draws["lora"][1:]
    assert np.corrcoef(ours[:, 0], ours[:, 1])[0, 1] == pytest.approx(1)
    assert abs(np.corrcoef(ours[:, 0], theirs[:, 0])[0, 1]) < 0.03
    assert ours[:, 0].std() == pytest.approx((0.85 * 0.15 / 800) ** 0.5, rel=0.1)


@pytest.mark.parametrize(("lead", "low", "high"), [(0, 0, 0.12), (0.06, 0.9, 1)])
def test_equal_systems_are_told_apart_by_luck_as_rarely_as_said(lead, low, high):
    truths = {f"s{number}": 0.85 for number in range(4)} | {"first": 0.85 + lead}
    told = 0
    for seed in range(100):
        systems = evidence(answers(truths, 1000, seeds=1, seed=seed))
        draws = {name: 100 * drawn for name, drawn in draw_scores(systems).items()}
        told += any(not pair.low <= 0 <= pair.high for pair in compare_runs(draws, 1.0, 1000))
    assert low <= told / 100 <= high  # 5 % and three standard errors of so few repetitions
