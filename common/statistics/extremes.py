"""The verdict on how far a sample reaches: its smallest and its largest value.

A sample of a narrower law, or of one that is cut, leaves the ends of a law's range empty.
Kolmogorov's distance hardly sees it, since the ends hold little probability; the largest of n
values does, and its law is exact.
"""

from __future__ import annotations

import math

import numpy as np

from isometry.common.laws.distributions import Distribution
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics.rates import FALSE_ALARM, Verdict, grid

__all__ = ["reach", "reach_resolution"]


def reach(
    sample: np.ndarray, law: Distribution, *, dtype: str, false_alarm: float = FALSE_ALARM
) -> Verdict:
    """Judge that a sample reaches as far out as the law: ``F(largest)**n`` is uniform on [0, 1].

    So it is of the smallest value with ``1 - F``; the smaller of the two p-values is observed, each
    side at half the rate. An atomless law is meant; each value may be off by one unit in the last
    place, each probability by the grid, as everywhere.

    Parameters
    ----------
    sample : array
        Independent values, at least one.
    law : Distribution
        A continuous one.

    Returns
    -------
    Verdict
        An effect, here a law that ends where this one has the stated probability left, is never
        missed.
    """
    ends = np.array([np.min(sample), np.max(sample)], dtype=np.float64)
    off = FORMATS[dtype].ulp(ends)
    below, above = 1 - law.cdf(ends[0] - off[0]), law.cdf(ends[1] + off[1])
    inside = min(1.0, float(min(below, above)) + grid(dtype))
    p = math.exp(sample.size * math.log(inside)) if inside > 0 else 0.0
    effect = f"a law that ends where {law} has {{:.2g}} of its probability left"
    smallest = effect.format(reach_resolution(sample.size, dtype=dtype, false_alarm=false_alarm))
    return Verdict(
        f"how far the values reach under {law}, as a p-value",
        p,
        false_alarm / 2,
        1.0,
        sample.size,
        false_alarm,
        smallest,
        0.0,
        smallest,
        min(1.0, 2 * p),
    )


def reach_resolution(count: int, *, dtype: str, false_alarm: float) -> float:
    """Return the p beyond the end of another law with ``(1 - p + grid)**n = false_alarm / 2``."""
    return min(1.0, -math.expm1(math.log(false_alarm / 2) / count) + grid(dtype))
