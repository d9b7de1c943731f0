"""Verdicts on values that come again: within one draw, and from one draw to others.

No value of a right continuous draw has a probability above `rates.grid`, 2**-22 and in float64
2**-51: that of a step of the generator and of the format. So the next value is one of m given ones
with probability at most m times that, whatever was drawn before, and the repeats are at most as
many as heads of independent coins with these probabilities: Bernstein's inequality bounds them.
"""

from __future__ import annotations

import math

import numpy as np

from isometry.common.statistics import bounds
from isometry.common.statistics.rates import FALSE_ALARM, MISS, Verdict, enough, grid

__all__ = ["between", "within"]


def within(sample: np.ndarray, *, detects: int, dtype: str) -> Verdict:
    """Judge how many values of a draw it had before; `detects` is a number of equal sources.

    A generator of m values repeats one of the k different ones so far with probability k / m, and
    k is at least the number of draws less `high` until it is caught: it escapes with probability
    at most ``exp(-(mean - high)**2 / (2 mean))``, ``mean = (n - high)**2 / (2 m)`` (Chernoff).
    """
    n = sample.size
    expected = grid(dtype) * n * (n - 1) / 2
    high = _limit(expected)
    mean = (n - high) ** 2 / (2 * detects)
    caught = mean > high and (mean - high) ** 2 / (2 * mean) >= -math.log(MISS)
    effect = f"a source of {detects} values"
    enough(n, n if caught else n + 1, effect)
    return _verdict("values drawn before", n - np.unique(sample).size, expected, n, effect, MISS)


def between(sample: np.ndarray, others: np.ndarray, *, detects: float, dtype: str) -> Verdict:
    """Judge how many values of a draw are among those of others, at any position.

    `detects` is the fraction that a wrong generator has in common; it is never missed.
    """
    n = sample.size
    expected = grid(dtype) * n * others.size
    effect = f"{detects:.0%} of the values in common"
    enough(n, n if detects * n > _limit(expected) else n + 1, effect, 0)
    shared = int(np.count_nonzero(np.isin(sample, others)))
    return _verdict("values in common", shared, expected, n, effect, 0)


def _limit(expected: float) -> int:
    return math.ceil(expected + bounds.one_sided_bernstein(expected, 1.0, FALSE_ALARM))


def _verdict(
    claim: str, observed: int, expected: float, count: int, effect: str, miss: float
) -> Verdict:
    p = bounds.one_sided_bernstein_p(expected, 1.0, observed - expected)
    high = _limit(expected)
    return Verdict(claim, observed, 0, high, count, FALSE_ALARM, effect, miss, p_value=p)
