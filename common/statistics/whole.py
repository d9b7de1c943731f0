"""Verdicts on the whole law: Kolmogorov's distance, and values that the law does not have."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from isometry.common.errors import InvalidArgument
from isometry.common.laws.distributions import Distribution
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics import bounds
from isometry.common.statistics.rates import FALSE_ALARM, MISS, Verdict, enough, grid

__all__ = [
    "distribution",
    "distribution_resolution",
    "distribution_size",
    "support",
    "support_resolution",
    "support_size",
]


def distribution(
    sample: np.ndarray,
    cdf: Callable[[np.ndarray], np.ndarray],
    *,
    detects: float,
    dtype: str,
    slack: float = 0.0,
    false_alarm: float = FALSE_ALARM,
    miss: float = MISS,
) -> Verdict:
    """Judge the whole law by Kolmogorov's distance; `detects` is the distance of another law.

    The distance is measured from F at one unit in the last place further out on either side, so
    that rounding the values cannot add to it; that of another law is meant so, too. `slack` bounds
    the error of a value where that is more: one computed in several steps.
    """
    effect = "a law at Kolmogorov distance {:g}"
    allowed = bounds.dkw(sample.size, false_alarm)
    smallest = distribution_resolution(sample.size, dtype=dtype, false_alarm=false_alarm, miss=miss)
    needed = distribution_size(detects, dtype=dtype, false_alarm=false_alarm, miss=miss)
    enough(sample.size, needed, effect.format(detects), miss)
    x = np.sort(sample.astype(np.float64).ravel())
    off = np.maximum(FORMATS[dtype].ulp(x), slack)
    rank = np.arange(x.size) / x.size
    above = np.max(rank + 1 / x.size - cdf(x + off))
    below = np.max(cdf(x - off) - rank)
    observed = float(max(above, below))
    return Verdict(
        "Kolmogorov distance",
        observed,
        -math.inf,
        allowed + grid(dtype),
        x.size,
        false_alarm,
        effect.format(detects),
        miss,
        effect.format(smallest),
        bounds.kolmogorov_p(x.size, observed - grid(dtype)),
    )


def distribution_resolution(count: int, *, dtype: str, false_alarm: float, miss: float) -> float:
    """Return the Kolmogorov distance: DKW's band, and the miss of another law one-sided.

    The empirical distribution function at the one point where the laws differ most is a mean of
    n coins: Hoeffding 1963, theorem 1.
    """
    missed = math.sqrt(math.log(1 / miss) / (2 * count))
    return bounds.dkw(count, false_alarm) + missed + grid(dtype)


def distribution_size(detects: float, *, dtype: str, false_alarm: float, miss: float) -> int:
    """Return the sample size: what exceeds the grid in the resolution falls as 1 / sqrt(n)."""
    beyond = grid(dtype)
    if detects <= beyond:
        raise InvalidArgument(
            f"a distance of {detects:g} is within the grid of {dtype}'s generators, {beyond:g}"
        )
    one = distribution_resolution(1, dtype=dtype, false_alarm=false_alarm, miss=miss)
    return math.ceil(((one - beyond) / (detects - beyond)) ** 2)


def support(
    sample: np.ndarray, law: Distribution, *, detects: float, dtype: str, miss: float = MISS
) -> Verdict:
    """Judge that no value leaves the support by more than one ULP; never a false alarm.

    `detects` is the probability with which a wrong law leaves it. The support of a discrete law
    is its atoms.
    """
    effect = "a probability of {:g} outside"
    enough(sample.size, support_size(detects, miss), effect.format(detects), miss)
    intervals = [(atom, atom) for atom in law.atoms] or [law.support]
    x = sample.astype(np.float64)
    inside = np.zeros(x.shape, dtype=bool)
    for low, high in intervals:
        ulp = FORMATS[dtype].ulp(np.array([low, high]))
        inside |= (x >= low - ulp[0]) & (x <= high + ulp[1]) & np.isfinite(x)
    return Verdict(
        f"values outside the support of {law}",
        int(np.count_nonzero(~inside)),
        0,
        0,
        x.size,
        0.0,
        effect.format(detects),
        miss,
        effect.format(support_resolution(x.size, miss)),
    )


def support_resolution(count: int, miss: float) -> float:
    """Return the probability p outside with ``(1 - p)**n = miss``."""
    return -math.expm1(math.log(miss) / count)


def support_size(detects: float, miss: float) -> int:
    """Return n with ``(1 - detects)**n <= miss``."""
    return math.ceil(math.log(miss) / math.log1p(-detects) * (1 - 1e-12))
