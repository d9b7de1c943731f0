"""The verdict on how many different values a half-precision sample has.

Half precisions are roundings of float32 draws, so that n values of a continuous law take as many
different values as n balls occupy cells: the rounding cells of the format, with their exact
probabilities. A generator that draws in the format itself has far fewer values to give: 2**7 in
bfloat16 and 2**10 in float16, if it fills the fraction's bits.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from isometry.common import checks
from isometry.common.laws.distributions import Distribution
from isometry.common.laws.formats import FORMATS
from isometry.common.statistics import bounds
from isometry.common.statistics.rates import FALSE_ALARM, Verdict, enough, grid

__all__ = ["distinct", "distinct_limit", "distinct_size", "expected_distinct"]

HALF = ("float16", "bfloat16")


def distinct(
    sample: np.ndarray,
    law: Distribution,
    *,
    detects: int,
    dtype: str,
    false_alarm: float = FALSE_ALARM,
) -> Verdict:
    """Judge that a sample has no fewer different values than rounding leaves of the law.

    Parameters
    ----------
    sample : array
        Independent values of the continuous `law`, rounded to the nearest `dtype`.
    detects : int
        A generator of at most so many values: it is never missed.
    dtype : {"float16", "bfloat16"}
    """
    effect = "a generator of at most {:.0f} different values"
    enough(sample.size, distinct_size(law, detects, dtype, false_alarm), effect.format(detects), 0)
    low = distinct_limit(law, sample.size, dtype, false_alarm)
    observed = np.unique(sample.astype(np.float64)).size
    expected, variance = expected_distinct(law, sample.size, dtype)
    return Verdict(
        f"different values of {law} in {dtype}",
        observed,
        low,
        sample.size,
        sample.size,
        false_alarm,
        effect.format(detects),
        0.0,
        effect.format(low - 1),
        bounds.one_sided_bernstein_p(variance, 1.0, expected - observed),
    )


def distinct_limit(law: Distribution, count: int, dtype: str, false_alarm: float) -> int:
    """Return the number that n values of the law fall below with probability at most the rate.

    Whether a cell is occupied is negatively associated over the cells (Dubhashi and Ranjan 1998,
    Random Struct. Algorithms 13, 99-124: counts of balls in bins, and increasing functions of
    each), so that Bernstein's inequality holds for their number as if they were independent.
    """
    expected, variance = expected_distinct(law, count, dtype)
    return max(1, math.ceil(expected - bounds.one_sided_bernstein(variance, 1.0, false_alarm)))


def distinct_size(law: Distribution, detects: int, dtype: str, false_alarm: float) -> int:
    """Return, to 1 %, the sample size from which on `detects` values are too few."""
    return bounds.required(lambda count: distinct_limit(law, count, dtype, false_alarm) > detects)


def expected_distinct(law: Distribution, count: int, dtype: str) -> tuple[float, float]:
    """Return a lower bound of the expected number of occupied cells, and the sum of variances.

    ``sum q`` and ``sum q (1 - q)`` with ``q = 1 - (1 - p)**n``, p the probability of a cell less
    the grid at either end: a right sample occupies each cell with at least this probability, and
    a lower tail bound that holds for smaller ones holds for it.
    """
    with np.errstate(divide="ignore"):
        q = -np.expm1(count * np.log1p(-_cells(law, dtype)))
    return float(q.sum()), float((q * (1 - q)).sum())


@functools.cache
def _cells(law: Distribution, dtype: str) -> np.ndarray:
    """Return the probabilities, less the grid, of all that rounds to each finite value."""
    form = FORMATS[checks.choice("dtype", dtype, HALF)]
    fractions = np.arange(2 ** (form.precision - 1))
    exponents = np.arange(form.min_exponent, form.max_exponent + 1)
    unit = np.ldexp(1.0, exponents - form.precision + 1)[:, None]
    normal = ((2 ** (form.precision - 1) + fractions) * unit).ravel()
    positive = np.concatenate([fractions[1:] * unit[0], normal])
    values = np.concatenate([-positive[::-1], [0.0], positive])
    ends = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    return np.maximum(np.diff(law.cdf(ends)) - 2 * grid(dtype), 0.0)
