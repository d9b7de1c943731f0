"""Which laws a sample of so many values is sure to tell apart, by the tests of `identify`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from isometry.common.laws.distributions import Distribution
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics import bounds, verdicts
from isometry.common.statistics.extremes import reach_resolution
from isometry.common.statistics.known import FAMILIES, of_family
from isometry.common.statistics.moments import moment_slack
from isometry.common.statistics.verdicts import MISS

__all__ = ["std_resolution", "told_apart"]

NODES = 4001  # at which two distribution functions are compared: the distance is at least that


def told_apart(
    law: Distribution, truth: Distribution, count: int, *, rate: float, dtype: str = "float32"
) -> bool:
    """Return whether a law is sure to be rejected when the values are of another law, `truth`.

    Sure is a probability of `MISS` at most that a test keeps it, for one of the tests at least,
    each of them at a false alarm of `rate`.

    >>> from isometry.common.laws.distributions import Normal
    >>> [told_apart(Normal(0, 1.0), Normal(0, s), 65536, rate=2e-7) for s in (1.02, 1.03)]
    [False, True]
    """
    smallest = verdicts.distribution_resolution(count, dtype=dtype, false_alarm=rate, miss=MISS)
    return (
        _leaves(law, truth, count, dtype)
        or any(_moment_differs(law, truth, count, power, rate, dtype) for power in (1, 2))
        or _falls_short(law, truth, count, rate, dtype)
        or _distance(law, truth) > smallest
    )


@functools.cache
def std_resolution(count: int, rate: float, dtype: str) -> float:
    """Return d, if a std of 1 + d times another, or the reverse, is sure to be told.

    Whatever the two families are.
    """
    laws = [of_family(family, 1.0) for family in FAMILIES]
    allowed = [bounds.moment(law, 2, count, rate) for law in laws]
    slack = max(
        moment_slack(law, 2, dtype, high) for law, (_, high) in zip(laws, allowed, strict=True)
    )
    low, high = min(low for low, _ in allowed) - slack, max(high for _, high in allowed) + slack
    shown = [bounds.moment(law, 2, count, 2 * MISS) for law in laws]
    least, most = min(least for least, _ in shown), max(most for _, most in shown)
    if least <= 0 or low <= 0:
        return math.inf
    return math.sqrt(max(high / least, most / low)) - 1


def _leaves(law: Distribution, truth: Distribution, count: int, dtype: str) -> bool:
    """Whether one of the values lies outside the law's support."""
    ends = np.array(law.support)
    off = 2 * FORMATS[dtype].ulp(np.where(np.isfinite(ends), ends, 0.0))
    low, high = truth.cdf(ends + off * (-1, 1))
    return bool((high - low) ** count <= MISS)


def _moment_differs(
    law: Distribution, truth: Distribution, count: int, power: int, rate: float, dtype: str
) -> bool:
    """Whether the mean differs, or the second moment of laws of one mean."""
    low, high = bounds.moment(law, power, count, rate)
    slack = moment_slack(law, power, dtype, high)
    least, most = bounds.moment(truth, power, count, 2 * MISS)
    scale = math.sqrt(truth.moments[1] / law.moments[1])
    shift = (truth.moments[0] - law.moments[0]) / math.sqrt(law.moments[1])
    if power == 2 and shift:
        return False
    least, most = (x * scale**power + shift for x in (least, most))
    return least > high + slack or most < low - slack


def _falls_short(
    law: Distribution, truth: Distribution, count: int, rate: float, dtype: str
) -> bool:
    """Whether no value comes near one of the law's ends."""
    left = reach_resolution(count, dtype=dtype, false_alarm=rate)
    mean, std = law.moments[0], math.sqrt(law.moments[1])
    far = 40 * std  # beyond every law's quantiles of interest
    low = _bisect(lambda x: float(law.cdf(x)) >= left, mean - far, mean + far)
    high = _bisect(lambda x: 1 - float(law.cdf(x)) < left, mean - far, mean + far)
    off = float(FORMATS[dtype].ulp(np.array(max(abs(low), abs(high)))))
    below, above = truth.cdf(np.array([low + 2 * off, high - 2 * off]))
    return bool(count * min(below, 1 - above) <= MISS)


def _bisect(reached: Callable[[np.ndarray], bool], low: float, high: float) -> float:
    """Return the x between at which `reached` turns true."""
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(np.array(middle)) else (middle, high)
    return (low + high) / 2


def _distance(law: Distribution, other: Distribution) -> float:
    """Return a lower bound of Kolmogorov's distance, that at `NODES` places."""
    ends = [
        law_.moments[0] + k * math.sqrt(law_.moments[1]) for law_ in (law, other) for k in (-5, 5)
    ]
    x = np.linspace(min(ends), max(ends), NODES)
    return float(np.abs(law.cdf(x) - other.cdf(x)).max())
