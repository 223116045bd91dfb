"""What tuning by k trials would have come to: their expected best score, which tells tuning more from being better."""

from collections.abc import Sequence


def expected_best(scores: Sequence[float]) -> list[float]:
    """Return the expected best of 1, 2 … n random trials, by the n scores that there are.

    The maximum of k draws is at most the i-th smallest score with probability (i / n)^k, trials being drawn from those
    made, with replacement (Dodge et al. 2019, "Show Your Work", §3.1). That leans low, the more so as k nears n (Tang
    et al. 2020): alike for all methods that made as many trials.
    """
    ordered = sorted(scores)
    n = len(ordered)
    return [
        sum(score * ((i / n) ** k - ((i - 1) / n) ** k) for i, score in enumerate(ordered, start=1))
        for k in range(1, n + 1)
    ]
